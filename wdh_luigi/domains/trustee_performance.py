"""Monthly performance of pension plans, as their trustees report it (受托业绩)."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Annotated

from annotated_types import Ge, Gt, Le

from wdh_luigi.schema import Code, Domain, Money, Month, PerUnit, Rate, Reading, Record


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
        Rate("收益率", ("收益率", "return_rate"), Ge(Decimal(-1)), Le(Decimal(10)), digits=8, places=6),
    ]
    net_asset_value: Annotated[
        Decimal | None,
        PerUnit("净值", ("净值", "单位净值", "net_asset_value"), Gt(Decimal(0)), digits=18, places=4),
    ]
    fund_scale: Annotated[
        Decimal | None,
        Money("规模", ("规模", "资产规模", "fund_scale"), Ge(Decimal(0)), digits=18, places=2),
    ]

    def warnings(self, reading: Reading) -> list[str]:
        found = []
        if self.return_rate is not None and abs(self.return_rate) > Decimal("0.5"):
            found.append(f"收益率 {self.return_rate} is beyond ±50 %")
        if self.net_asset_value is not None and self.net_asset_value > 100:
            found.append(f"净值 {self.net_asset_value} is above 100: 资产净值 instead of 单位净值?")
        if reading.file_period and self.report_date < reading.file_period:
            found.append(f"报告期 {self.report_date:%Y-%m} is earlier than the file's {reading.file_period:%Y-%m}")
            if self.report_date < reading.file_period.replace(year=reading.file_period.year - 10):
                found.append(f"报告期 {self.report_date:%Y-%m} is more than ten years before the file's period")
        return found


DOMAIN = Domain(
    name="trustee_performance",
    model=TrusteePerformance,
    year=("年", "年份", "year"),
    month=("月", "月份", "month"),
    period=("报告期", "report_period"),
)
