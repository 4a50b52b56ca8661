"""Monthly performance of pension plans, as their trustees report it (受托业绩)."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Annotated

from annotated_types import Ge, Gt, Le

from wdh_luigi.schema import Code, Domain, Money, Month, PerUnit, Rate, Record, Usual


class TrusteePerformance(Record):
    """
    One plan's month: report_date and the codes are the key, any figure may be blank.

    return_rate is a ratio (0.055 is 5.5 %), net_asset_value 元 per unit, fund_scale 元.
    """

    report_date: Annotated[date, Month("报告期", ("报告期", "report_period"))]
    plan_code: Annotated[str, Code("计划代码", ("计划代码", "plan_code"), longest=50)]
    company_code: Annotated[str, Code("公司代码", ("公司代码", "company_code"), longest=20)]
    return_rate: Annotated[
        Decimal | None,
        Rate(
            "收益率",
            ("收益率", "return_rate"),
            Ge(Decimal(-1)),
            Le(Decimal(10)),
            digits=8,
            places=6,
            usual=Usual(Decimal("-0.5"), Decimal("0.5"), "is beyond ±50 %"),
        ),
    ]
    net_asset_value: Annotated[
        Decimal | None,
        PerUnit(
            "净值",
            ("净值", "单位净值", "net_asset_value"),
            Gt(Decimal(0)),
            digits=18,
            places=4,
            usual=Usual(Decimal(0), Decimal(100), "is above 100: 资产净值 instead of 单位净值?"),
        ),
    ]
    fund_scale: Annotated[
        Decimal | None,
        Money("规模", ("规模", "资产规模", "fund_scale"), Ge(Decimal(0)), digits=18, places=2),
    ]


DOMAIN = Domain(
    name="trustee_performance",
    model=TrusteePerformance,
    year=("年", "年份", "year"),
    month=("月", "月份", "month"),
    period=("报告期", "report_period"),
)
