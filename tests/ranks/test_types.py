"""Types whose order Python does not know, on several shards and in one database."""

from __future__ import annotations

import random
from typing import Any

import pytest
from django.contrib.postgres.fields import ArrayField, DateTimeRangeField
from django.db import DataError, ProgrammingError, connections, transaction
from django.db.models import (
    CharField,
    Count,
    DateField,
    DateTimeField,
    DecimalField,
    DurationField,
    Func,
    GenericIPAddressField,
    IntegerField,
    JSONField,
    Min,
    Value,
)
from django.db.models.functions import Cast, Collate
from django.test.utils import CaptureQueriesContext

from aggregator import collations, fan_out
from aggregator.ranks import Kind, ranks_of
from sharding.errors import CannotMerge
from tests.messages import whole
from tests.other_database import another_database
from tests.ranks.comparing import Named, distinct, everywhere, given, questions, require_equal, write
from tests.servers import SHARDS
from tests.shop.models import Customer
from tests.two_sides import answers, cluster_side, reference_side

pytestmark = pytest.mark.django_db(databases="__all__")


MOODS = ["sad", "ok", "happy", "Ärger", 'quo"te', "a,b"]
MAKE_MOOD = "CREATE TYPE mood AS ENUM ({})".format(", ".join(f"'{each}'" for each in MOODS))
FIELDS: dict[str, tuple[Any, list[str]]] = {
    "enum": (Named("mood"), MOODS),
    "inet": (
        GenericIPAddressField(),
        ["9.1.2.3", "10.0.0.1", "10.0.0.0/8", "10.0.0.1/8", "::1", "fe80::9", "100.0.0.1"],
    ),
    "jsonb": (
        JSONField(),
        ["null", "1", "1.0", "10", "9", '"b"', '"B"', "[]", "[1]", "{}", '{"b": 1}', '{"aa": null}', "true", "false"],
    ),
    "integers": (
        ArrayField(IntegerField()),
        ["{}", "{NULL}", "{1,NULL}", "{1}", "{10}", "{9,1}", "{1,2}", "{{1,2},{3,4}}"],
    ),
    "texts": (
        ArrayField(CharField(max_length=3)),
        ["{}", '{"a,b"}', '{"\\""}', "{NULL,a}", "{NULL}", '{"NULL"}', "{B}", "{a}", "{a,B}", "{é}", '{"\\\\"}'],
    ),
    "decimals": (
        ArrayField(DecimalField(max_digits=5, decimal_places=2)),
        ["{1.0}", "{1}", "{NaN}", "{-2}", "{NULL}", "{10}"],
    ),
    "moods": (Named("mood[]"), ["{sad}", "{ok}", "{happy,sad}", "{NULL,ok}", '{"a,b"}', "{}"]),
    "ranges": (
        DateTimeRangeField(),
        ["empty", "[2013-01-01,2013-02-01)", "(,2013-01-01)", "[2013-01-01,)", "(2013-01-01,2013-01-09]"],
    ),
    "money": (Named("money"), ["9", "10", "-3", "100.5", "1000"]),
    "padded": (Named("character(9)"), ["b", "a", "B", "abcdefgh", "abcdefgha", "abcdefghB"]),
    "macaddr": (Named("macaddr"), ["08:00:2b:01:02:03", "FF-00-2b-01-02-03", "08002b:010204"]),
}


@pytest.fixture(params=FIELDS)
def expression(request: Any) -> Any:
    field, values = FIELDS[request.param]
    everywhere(MAKE_MOOD)
    write(random.Random(5).choices([*values, ""], k=400))
    return Cast(given(), field)


def test_orders(expression: Any) -> None:
    require_equal(questions(expression))


def test_distinct(expression: Any) -> None:
    require_equal(distinct(expression))


def test_values_of_a_key_in_json() -> None:
    write([f'{{"k": {value}}}' for value in ["1", "2", "10", '"b"', '"a"', "null", "[1]", '"B"', "{}"] * 10])
    data = Cast(given(), JSONField())
    customers = fan_out(Customer.objects).annotate(data=data).order_by("data__k", "id")
    plain = Customer.objects.using("reference").annotate(data=data).order_by("data__k", "id")
    assert [row.pk for row in customers] == [row.pk for row in plain]


def test_elements_that_are_longer_than_django_knows() -> None:
    """They are not cut on their way to the shard that compares them."""
    write(["ab", "aa", "b", "abc", "a"] * 40)
    short = ArrayField(CharField(max_length=1))
    require_equal(questions(Func("name", Value(None), template="ARRAY[%(expressions)s]", output_field=short)))


def test_a_collation_of_ones_own() -> None:
    """It has a name that does not say that it sorts by code points, so that a shard is asked."""
    everywhere("""CREATE COLLATION own (provider = libc, locale = 'C')""")
    write([*"bBaAéÉ_zZ", ""] * 20)
    with CaptureQueriesContext(connections["shard_a"]) as sent:
        require_equal(questions(Collate(given(), "own")))
    assert any("dense_rank" in query["sql"] for query in sent)


def test_one_question_for_a_list_and_none_where_one_shard_answers() -> None:
    write(["b", "B", "a"] * 20)
    everywhere("""CREATE COLLATION own (provider = libc, locale = 'C')""")
    asked = fan_out(Customer.objects).order_by(Collate("name", "own"), "id")
    list(asked)
    for queryset, number in (
        (asked.all(), 1),
        (asked.filter(tenant_id=1, name="b"), 0),
        (asked.order_by("tenant_id"), 0),
    ):
        with CaptureQueriesContext(connections["shard_a"]) as first:
            list(queryset)
        assert sum("dense_rank" in query["sql"] for query in first) == number


def test_one_question_for_distinct_and_its_order() -> None:
    write(["1", "1.0", "2"] * 20)
    with CaptureQueriesContext(connections["shard_a"]) as sent:
        found = list(
            fan_out(Customer.objects)
            .annotate(x=Cast("name", JSONField()))
            .values_list("x", flat=True)
            .distinct()
            .order_by("-x")
        )
    assert found == [2, 1]
    assert sum("dense_rank" in query["sql"] for query in sent) == 1


def test_shards_that_compare_otherwise() -> None:
    everywhere("CREATE COLLATION own (provider = libc, locale = 'C')")
    with connections["shard_b"].cursor() as cursor:
        cursor.execute("DROP COLLATION own")
        cursor.execute("CREATE COLLATION own (provider = libc, locale = 'POSIX')")
    collations._compared.clear()
    message = (
        "The answers of several shards to this shop.Customer query cannot be merged exactly because of text compared "
        "under different collations (own c C, own c POSIX). Give the databases of all shards the same collation, of "
        "the same version."
    )
    with pytest.raises(CannotMerge, match=whole(message)):
        list(fan_out(Customer.objects).order_by(Collate("name", "own")))
    with connections["shard_b"].cursor() as cursor:
        cursor.execute("DROP COLLATION own")
        cursor.execute("CREATE COLLATION own (provider = libc, locale = 'C')")
    assert list(fan_out(Customer.objects).order_by(Collate("name", "own"))) == []


def test_an_enum_in_another_order_on_one_shard() -> None:
    """What the first shard ranks is in no order on that one, and no merge of it would be."""
    everywhere(MAKE_MOOD)
    with connections["shard_c"].cursor() as cursor:
        cursor.execute("DROP TYPE mood")
        cursor.execute("CREATE TYPE mood AS ENUM ('happy', 'sad', 'ok')")
    write(["sad", "ok", "happy"] * 20)
    message = (
        "The answers of several shards to this shop.Customer query cannot be merged exactly because of rows that a "
        "shard sorts otherwise than shard_a ranks their values. Give an enum the same labels everywhere, expressions "
        "the output_field that they have, and REINDEX after a change of a collation's version."
    )
    with pytest.raises(CannotMerge, match=whole(message)):
        list(fan_out(Customer.objects).order_by(Cast("name", Named("mood"))))


INFINITE = ["infinity", "-infinity", "2013-01-01"]


@pytest.mark.parametrize("field", [DateField(), DateTimeField()], ids=["dates", "moments"])
def test_what_python_has_no_value_for(field: Any) -> None:
    """The driver cannot read it: the error of one database, and never an answer without it."""
    write(INFINITE * 20)
    errors = []
    for side in (cluster_side, reference_side):
        with (
            pytest.raises(DataError, match=r"too (large|small)") as caught,
            transaction.atomic(using=side(Customer).db),
        ):
            list(side(Customer).annotate(x=Cast(given(), field)).order_by("x"))
        errors.append(type(caught.value))
    assert errors[0] is errors[1]
    # What is not sent to Python is answered.
    found, expected = answers(lambda customers: customers(Customer).values(x=Cast(given(), field)).count())
    assert found == expected == 60
    # It travels to be sorted by, although it is not selected.
    with pytest.raises(DataError, match=r"too (large|small)"):
        list(fan_out(Customer.objects).order_by(Cast(given(), field)).values_list("id"))


def test_equal_numbers_of_different_scale() -> None:
    """Any of them may stand for all, as in one database."""
    write(["1.0", "1.00", "1", "2"] * 20)
    x = Cast(given(), Named("numeric"))
    found, expected = answers(lambda customers: customers(Customer).values_list(x, flat=True).distinct().order_by(x))
    assert found == expected == [1, 2]
    found, expected = answers(
        lambda customers: customers(Customer).values(x=x).annotate(n=Count("id"), least=Min(x)).order_by("x")
    )
    assert found == expected == [{"x": 1, "n": 60, "least": 1}, {"x": 2, "n": 20, "least": 2}]


def test_groups_by_json_count_a_key_once() -> None:
    """1 and 1.0 are equal, and their texts are not."""
    write([*["1"] * 8, *["1.0"] * 8] * 5)
    found, expected = answers(
        lambda customers: (
            customers(Customer)
            .values(x=Cast("name", JSONField()))
            .annotate(tenants=Count("tenant_id", distinct=True), n=Count("id"))
        )
    )
    assert found == expected == [{"x": 1, "tenants": 8, "n": 80}]


def test_intervals_are_compared_by_their_lengths() -> None:
    write(["1 year", "361 days", "360 days", "12 mons"] * 20)
    x = Cast(given(), DurationField())
    counted, expected = answers(lambda customers: customers(Customer).values(x=x).distinct().count())
    assert counted == expected == 2
    first, last = fan_out(Customer.objects).order_by(x)[0], fan_out(Customer.objects).order_by(x).last()
    assert first.name != "361 days"
    assert last.name == "361 days"


def test_an_encoding_whose_bytes_are_in_another_order() -> None:
    """Halfwidth katakana come before kanji in EUC_JP, and behind them in Unicode."""
    with another_database("shard_a", "ENCODING 'EUC_JP' LOCALE_PROVIDER libc LOCALE 'C'") as connection:
        assert not collations.sort_by_code_points([connection], None)
        assert not collations.sort_by_code_points([connections["shard_b"], connection], "C")
        assert ranks_of(connection, Kind("text"), ["\uff71", "\u4e9c"]) == {"\uff71": 1, "\u4e9c": 2}
    with another_database("shard_a", "ENCODING 'LATIN1' LOCALE_PROVIDER libc LOCALE 'C'") as connection:
        collations._databases.clear()
        assert collations.sort_by_code_points([connection], None)
    collations._databases.clear()


MISSING = 'collation "none" for encoding "UTF8" does not exist'


def test_a_collation_that_is_missing() -> None:
    """The statement complains, and it may be made meanwhile."""
    for _ in range(2):
        with pytest.raises(ProgrammingError, match=MISSING), transaction.atomic(using="default"):
            list(fan_out(Customer.objects).order_by(Collate("name", "none")))
    everywhere("CREATE COLLATION none (provider = libc, locale = 'C')")
    assert list(fan_out(Customer.objects).order_by(Collate("name", "none"))) == []


def test_equal_values_have_one_rank() -> None:
    found = ranks_of(connections["shard_a"], Kind("jsonb"), ["2", "1.0", "1", "2", '{"a":1}', '{"a": 1}'])
    assert found == {"1": 1, "1.0": 1, "2": 2, '{"a":1}': 3, '{"a": 1}': 3}


def test_nothing_is_asked_about_one_value_or_none() -> None:
    with CaptureQueriesContext(connections["shard_a"]) as sent:
        assert ranks_of(connections["shard_a"], Kind("inet"), []) == {}
        assert ranks_of(connections["shard_a"], Kind("inet"), ["::1", "::1"]) == {"::1": 1}
    assert len(sent) == 0


def test_inside_an_atomic_block() -> None:
    everywhere(MAKE_MOOD)
    with transaction.atomic(using="default"):
        write(MOODS * 40)
        require_equal(questions(Cast(given(), Named("mood"))))
    assert len(SHARDS) == 3
