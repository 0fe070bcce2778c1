"""Text in languages, as glibc and ICU sort it, on several shards and in one database."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.postgres.fields import ArrayField
from django.db import connections
from django.db.models import Case, CharField, Count, Func, Value, When
from django.db.models.functions import Cast, Collate, Lower

from aggregator import KeysetPaginator, collations, fan_out
from sharding.errors import CannotMerge
from tests.ranks.comparing import Named, distinct, everywhere, given, questions, require_equal, write
from tests.shop.models import Customer
from tests.two_sides import TENANTS, answers

pytestmark = [pytest.mark.debian, pytest.mark.django_db(databases="__all__")]

LETTERS = "aAbBäÄåÅéÉeEzZøØœßsSþÞ中ω_- .'\u20190129\U0001f600e\u0301"


def words(number: int) -> list[str]:
    """Return words of which most are close to another, some the same, and some none."""
    random_ = random.Random(11)
    pool = ["".join(random_.choices(LETTERS, k=random_.randint(1, 6))) for _ in range(number * 2 // 3)]
    pool += [word.swapcase() for word in pool[: number // 6]]
    return [*random_.choices(pool, k=number - number // 20), *[""] * (number // 20)]


MAKE_LOOSE = "CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level1', deterministic = false)"
MAKE_CASELESS = "CREATE COLLATION caseless (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
COLLATIONS = ["en_US", "und-x-icu", "sv-x-icu", "loose", "caseless"]
DATABASES_OWN = {"": lambda: given(), "lower": lambda: Lower(given())}


@pytest.fixture
def _rows() -> None:
    everywhere(MAKE_LOOSE)
    everywhere(MAKE_CASELESS)
    write(words(3000))


@pytest.mark.usefixtures("_rows")
class TestThousandsOfWords:
    @pytest.mark.parametrize("collation", COLLATIONS)
    def test_orders(self, collation: str) -> None:
        require_equal(questions(Collate(given(), collation)))

    @pytest.mark.parametrize("make", DATABASES_OWN.values(), ids=DATABASES_OWN)
    def test_orders_in_the_language_of_the_databases(self, make: Any) -> None:
        require_equal(questions(make()))

    @pytest.mark.parametrize("collation", COLLATIONS)
    def test_distinct(self, collation: str) -> None:
        """Of equal words any may stand for all: they are compared by their place and number."""
        require_equal(distinct(Collate(given(), collation)), same=classes(collation))

    def test_another_version_of_the_library(self) -> None:
        """Two versions of glibc cannot be had here: what is known of one shard is changed."""
        collations._compared.clear()
        list(fan_out(Customer.objects).order_by("name")[:1])
        place = next(place for place in collations._compared if place[0] == "shard_b")
        own = collations._compared[place]
        assert re.fullmatch(r"en_US\.UTF-8 \d\.\d+", own)
        collations._compared[place] = "en_US.UTF-8 3.0"
        with pytest.raises(CannotMerge) as caught:
            list(fan_out(Customer.objects).order_by("name")[:1])
        assert caught.value.construct == f"text compared under different collations ({own}, en_US.UTF-8 3.0)"

    def test_what_is_declared_as_text_and_is_none(self) -> None:
        """Ranks of text would be wrong, so the rows are gathered and sorted as what they are."""
        number = Func("tenant_id", function="ABS", output_field=CharField())
        found, expected = answers(lambda rows: rows(Customer).order_by(number, "id").values_list("id", flat=True))
        assert found == expected
        assert len(found) == 3000

    def test_an_enum_that_is_declared_as_text(self) -> None:
        everywhere("CREATE TYPE size AS ENUM ('small', 'middle', 'big')")
        size = Case(When(email__startswith="1", then=Value("small")), When(email__startswith="2", then=Value("big")))
        mood = Func(size, template="CAST(%(expressions)s AS size)", output_field=CharField())
        with pytest.raises(CannotMerge) as caught:
            list(fan_out(Customer.objects).order_by(mood, "id"))
        assert caught.value.construct == "rows that a shard sorts otherwise than shard_a ranks their values"

    def test_citext(self) -> None:
        everywhere("CREATE EXTENSION citext")
        x = Cast(given(), Named("citext"))
        require_equal(questions(x))
        require_equal(distinct(x), same=lambda word: str(word).lower())

    @pytest.mark.parametrize("kind", ["hstore", "hstore[]"])
    def test_groups_by_hstore(self, kind: str) -> None:
        everywhere("CREATE EXTENSION hstore")
        pairs = Func(Value("a"), "tenant_id", template="hstore('a', (%(expressions)s)::text)", arg_joiner=" || ")
        template = "%(expressions)s" if kind == "hstore" else "ARRAY[%(expressions)s]"
        x = Func(pairs, template=template, output_field=Named(kind))
        found, expected = answers(lambda rows: rows(Customer).values(x=x).annotate(n=Count("id")).order_by("x"))
        assert found == expected
        assert len(found) == len(TENANTS)

    def test_arrays_in_a_language(self) -> None:
        words_ = [Value("o"), given()]
        array = Func(*words_, template="ARRAY[%(expressions)s]", output_field=ArrayField(CharField(max_length=9)))
        x: Any = Collate(array, "sv-x-icu")
        require_equal(questions(x))

    def test_pages_by_cursors(self) -> None:
        pages = KeysetPaginator(fan_out(Customer.objects), 700, ordering=["name", "-tenant_id"])
        found, cursor = [], None
        while True:
            page = pages.page(cursor)
            found += [row.pk for row in page]
            cursor = page.next_cursor
            if cursor is None:
                break
        expected = Customer.objects.using("reference").order_by("name", "-tenant_id", "-id")
        assert found == [row.pk for row in expected]


def classes(collation: str) -> Callable[[Any], Any]:
    """Return what gives for each word the first of those that are equal to it, and for all else itself."""
    quoted = connections["reference"].ops.quote_name(collation)
    with connections["reference"].cursor() as cursor:
        cursor.execute(
            f"SELECT name, min(name COLLATE \"C\") OVER (PARTITION BY nullif(name, '') COLLATE {quoted}) "
            f"FROM shop_customer"
        )
        first = dict(cursor.fetchall())
    return lambda value: first.get(value, value)
