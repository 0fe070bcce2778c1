"""
The documentation says what the code does: every public name is in the reference, and the code on its pages is code.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
from argparse import ArgumentParser, _SubParsersAction
from collections.abc import Iterator
from types import ModuleType

import pytest
from django.core import management
from django.core.management import BaseCommand, find_commands, load_command_class
from django.db.models import F, Q, QuerySet
from django.db.models.sql import Query

import aggregator
import sharding
from aggregator.contrib import admin as contrib_admin
from aggregator.contrib import rest_framework as contrib_rest_framework
from sharding import errors, ids, routing
from sharding.management import commands
from sharding.managers import ShardedQuerySet
from tests.documents import REFERENCE, ROOT, Block, blocks, pages, reference
from tests.shop.models import Customer, Line, Order, Region

#: Modules that applications import from, beside the two packages.
PUBLIC_MODULES = (
    "sharding.env",
    "sharding.fields",
    "sharding.middleware",
    "sharding.router",
    "sharding.testing.cluster",
    "sharding.testing.statements",
)
DJANGOS_COMMANDS = management.__path__[0]
PYTHON_BLOCKS = [block for page in pages() for block in blocks(page, "python")]
MEANINGS = {"one bucket": 1, "two buckets": 2, "nothing": None}


def _errors() -> list[type[errors.ShardingError]]:
    return [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.ShardingError)]


def _section(page: str, title: str) -> str:
    text = (REFERENCE / page).read_text(encoding="utf-8")
    found = re.search(rf"^##+ {re.escape(title)}$(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"docs/reference/{page} has no section {title}."
    return found[1]


@pytest.mark.parametrize("error", _errors(), ids=lambda error: error.__name__)
def test_errors_are_in_the_reference_with_their_attributes(error):
    section = _section("errors.md", f"`{error.__name__}`")
    missing = [name for name in inspect.get_annotations(error) if f"`{name}`" not in section]
    assert missing == []


def _public_names() -> Iterator[str]:
    yield from (f"sharding.{name}" for name in sharding.__all__)
    yield from (f"aggregator.{name}" for name in aggregator.__all__)
    for name in PUBLIC_MODULES:
        yield from (f"{name}.{each}" for each in _own_names(importlib.import_module(name)))
    for contrib in (contrib_admin, contrib_rest_framework):
        yield from (f"{contrib.__name__}.{name}" for name in contrib.__all__)
    yield "sharding.models.ShardedModel"
    yield from (f"{name}(" for name in vars(ShardedQuerySet) if not name.startswith("_"))


def _own_names(module: ModuleType) -> Iterator[str]:
    for name, value in vars(module).items():
        defined_here = getattr(value, "__module__", None) == module.__name__
        if defined_here and not name.startswith("_") and (inspect.isclass(value) or inspect.isfunction(value)):
            yield name


@pytest.mark.parametrize("name", list(_public_names()))
def test_public_names_are_in_the_reference(name):
    assert f"`{name}" in reference()


def _commands() -> Iterator[tuple[str, ArgumentParser]]:
    for module in pkgutil.iter_modules(commands.__path__):
        parser = load_command_class("sharding", module.name).create_parser("manage.py", module.name)
        yield from _with_subcommands(module.name, parser)


def _options(parser: ArgumentParser) -> set[str]:
    return {option for action in parser._actions for option in action.option_strings if option.startswith("--")}


def _djangos_options(name: str) -> set[str]:
    """Return the options that need no word of ours: those of every command, or of Django's own of that name."""
    command = load_command_class("django.core", name) if name in find_commands(DJANGOS_COMMANDS) else BaseCommand()
    return _options(command.create_parser("manage.py", name))


def _with_subcommands(name: str, parser: ArgumentParser) -> Iterator[tuple[str, ArgumentParser]]:
    yield name, parser
    for action in parser._actions:
        if isinstance(action, _SubParsersAction):
            for subcommand, its_parser in action.choices.items():
                yield from _with_subcommands(f"{name} {subcommand}", its_parser)


@pytest.mark.parametrize(("name", "parser"), [pytest.param(*each, id=each[0]) for each in _commands()])
def test_commands_and_their_options_are_in_the_reference(name, parser):
    section = _section("commands.md", f"`{name}`")
    assert [each for each in sorted(_options(parser) - _djangos_options(name)) if each not in section] == []


def test_readme_is_short_and_begins_with_code():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 120
    assert any(line.startswith("```python") for line in lines[:20])


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_links_outside_of_the_documentation_lead_somewhere(page):
    """The build of the documentation checks the others."""
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / page).read_text(encoding="utf-8"))
    assert [target for target in targets if not (ROOT / target).exists()] == []


@pytest.mark.parametrize("block", PYTHON_BLOCKS, ids=str)
def test_python_on_the_pages_is_valid(block):
    compile(block.text, str(block), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)


@pytest.mark.parametrize("block", [each for each in PYTHON_BLOCKS if re.search("import.* ", each.text)], ids=str)
def test_imports_on_the_pages_exist(block):
    for node in ast.walk(ast.parse(block.text)):
        name = getattr(node, "module", None) or ""
        if isinstance(node, ast.ImportFrom) and name.partition(".")[0] in {"sharding", "aggregator"}:
            module = importlib.import_module(name)
            assert [each.name for each in node.names if not _has(module, each.name)] == []


def _has(module: ModuleType, name: str) -> bool:
    return hasattr(module, name) or name in {each.name for each in pkgutil.iter_modules(module.__path__)}


@pytest.mark.django_db(databases="__all__")
def test_joins_on_the_page_about_fan_out(capsys):
    region = Region.objects.create(name="north")
    for tenant, where in ((1, region), (2, None)):
        customer = Customer.objects.create(tenant_id=tenant, name=f"of {tenant}", region=where)
        Order.objects.create(tenant_id=tenant, customer=customer)
    [block] = [each for each in blocks(ROOT / "docs" / "topics" / "fan-out.md", "python") if " join(" in each.text]
    exec(block.text, {"Order": Order, "Customer": Customer, "Region": Region})
    lines = capsys.readouterr().out.splitlines()
    assert sorted(lines) == ["new None", "new north", "of 1 north", "of 2 nowhere"]


def _proofs() -> Iterator[tuple[Block, str, int | None]]:
    """Yield the queries on the page about routing whose comment says how many buckets they prove."""
    for block in blocks(ROOT / "docs" / "topics" / "routing.md", "python"):
        for line in block.text.splitlines():
            code, _, comment = line.partition("  # ")
            meaning = re.split("[:,]", comment)[0].strip()
            if meaning in MEANINGS:
                yield block, code.strip(), MEANINGS[meaning]


PROOFS = list(_proofs())


def test_the_page_about_routing_has_queries_of_every_kind():
    assert {number for *_, number in PROOFS} == set(MEANINGS.values())


@pytest.mark.parametrize(("code", "number"), [each[1:] for each in PROOFS])
def test_queries_on_the_page_about_routing_prove_what_their_comments_say(code, number):
    bucket = sharding.bucket_of(42)
    order = Order(tenant_id=42, id=ids.new_uuid(bucket))
    names = {"Order": Order, "Line": Line, "Q": Q, "F": F, "order": order, "order_id": order.id}
    found = routing.buckets_of(_query_of(code, names))
    assert (found if found is None else len(found)) == number


def _query_of(code: str, names: dict[str, object]) -> Query:
    # get() would ask a database; it is a filter.
    queryset: QuerySet = eval(code.replace(".get(", ".filter("), names)
    return queryset.query
