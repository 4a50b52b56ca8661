"""The domains: one module each, named as the domain is in data_sources.yml, which declares a DOMAIN."""

from __future__ import annotations

import importlib
import pkgutil

from wdh_luigi.errors import ConfigError
from wdh_luigi.schema import Domain


def names() -> list[str]:
    """List the domains that have a module."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def get(name: str) -> Domain:
    """
    Return a domain's declaration.

    Raises:
        ConfigError: no module declares it; names those that there are.
    """
    if name not in names():
        raise ConfigError(
            f"domain {name}",
            f"wdh_luigi/domains/{name}.py does not exist; there are {', '.join(names())}",
            "correct --domain, or declare the domain in a module of that name",
        )
    domain = importlib.import_module(f"{__name__}.{name}").DOMAIN
    assert isinstance(domain, Domain)
    return domain
