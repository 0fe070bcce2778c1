"""
The fields of sharded models: the stored bucket, and ids that are unique over the cluster and hold the bucket.
"""

from __future__ import annotations

import secrets
import uuid
from typing import Any

from django.core import checks
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper

from sharding import conf, ids, minting, registry, scopes


class BucketField(models.SmallIntegerField):  # type: ignore[type-arg]
    """The bucket of the row, computed from its shard key whenever the row is written."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("editable", False)
        super().__init__(*args, **kwargs)

    def deconstruct(self) -> Any:
        name, path, args, kwargs = super().deconstruct()
        kwargs.pop("editable", None)
        return name, path, args, kwargs

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        entry = registry.entry(type(model_instance))
        if entry is not None:
            setattr(model_instance, self.attname, entry.bucket_of(model_instance))
        return super().pre_save(model_instance, add)


class _ShardIdField:
    """
    What both id fields share: the value is made when the row is first saved, since it holds the row's bucket.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("editable", False)
        super().__init__(*args, **kwargs)

    def deconstruct(self) -> Any:
        name, path, args, kwargs = super().deconstruct()  # type: ignore[misc]
        kwargs.pop("editable", None)
        return name, path, args, kwargs

    def has_default(self) -> bool:
        # Django then inserts a new row at once instead of trying an UPDATE first.
        return bool(self.primary_key) or super().has_default()  # type: ignore[misc,attr-defined]

    def get_default(self) -> Any:
        return None if self.primary_key else super().get_default()  # type: ignore[misc,attr-defined]

    def get_pk_value_on_save(self, instance: models.Model) -> Any:
        entry = registry.get(type(instance))
        own_key = getattr(self, "attname", None) == entry.key_attname
        scopes.complete(instance, entry)
        # A row that is its own shard key (a tenant) may live anywhere.
        bucket = secrets.randbelow(conf.current().buckets) if own_key else entry.bucket_of(instance)
        return self.mint(bucket)

    def mint(self, bucket: int) -> Any:
        raise NotImplementedError

    def db_check(self, connection: BaseDatabaseWrapper) -> str | None:
        """Refuse, in the database too, a row whose id was made for another bucket."""
        inherited: str | None = super().db_check(connection)  # type: ignore[misc]
        fields = {field.name: field for field in self.model._meta.local_fields}  # type: ignore[attr-defined]
        if not self.primary_key or not isinstance(fields.get(registry.BUCKET_COLUMN), BucketField):  # type: ignore[attr-defined]
            return inherited
        quote = connection.ops.quote_name
        own = self.bucket_sql(connection.vendor, quote(self.column))  # type: ignore[attr-defined]
        if own is None:
            return inherited
        condition = f"{own} = {quote(fields[registry.BUCKET_COLUMN].column)}"
        return f"({inherited}) AND ({condition})" if inherited else condition

    def bucket_sql(self, vendor: str, column: str) -> str | None:
        raise NotImplementedError

    def formfield(self, **kwargs: Any) -> Any:
        return None if self.primary_key else super().formfield(**kwargs)  # type: ignore[misc,attr-defined]

    def check(self, **kwargs: Any) -> list[checks.CheckMessage]:
        found: list[checks.CheckMessage] = super().check(**kwargs)  # type: ignore[misc]
        model = self.model  # type: ignore[attr-defined]
        if self.primary_key and not registry.is_sharded(model._meta.label_lower):  # type: ignore[attr-defined]
            found.append(
                checks.Error(
                    f"{model._meta.label}.{self.name} is a {type(self).__name__}, but "  # type: ignore[attr-defined]
                    f"{model._meta.object_name} is not sharded.",
                    hint="Inherit from sharding.models.ShardedModel, or use a UUIDField or BigAutoField.",
                    obj=self,
                    id="sharding.E020",
                )
            )
        return found


class ShardUUIDField(_ShardIdField, models.UUIDField):  # type: ignore[type-arg]
    """
    An id of RFC 9562 version 7: 48 bits of milliseconds, 12 bits of bucket, 62 random bits.

    Made in Python without coordination, ordered by time, and the row's bucket can be read from it.
    """

    def mint(self, bucket: int) -> uuid.UUID:
        return ids.new_uuid(bucket)

    def bucket_in(self, value: Any) -> int:
        return ids.bucket_of_uuid(self.to_python(value))

    def bucket_sql(self, vendor: str, column: str) -> str | None:
        if vendor == "postgresql":
            return f"((get_byte(uuid_send({column}), 6) & 15) << 8) | get_byte(uuid_send({column}), 7)"
        if vendor == "sqlite":
            # SQLite holds 32 hexadecimal digits and cannot read a number from them.
            digits = [f"(instr('0123456789abcdef', substr({column}, {place}, 1)) - 1)" for place in (14, 15, 16)]
            return f"{digits[0]} * 256 + {digits[1]} * 16 + {digits[2]}"
        return None


class ShardBigIntegerField(_ShardIdField, models.BigIntegerField):  # type: ignore[type-arg]
    """
    An id of 63 bits: 41 from a sequence of the minting shard, 10 of that shard's number, 12 of bucket.

    No clock takes part, so that no id repeats in a burst, when a clock steps back, or after a move.
    """

    def mint(self, bucket: int) -> int:
        return minting.new_bigint(bucket)

    def bucket_in(self, value: Any) -> int:
        return ids.bucket_of_bigint(value)

    def bucket_sql(self, vendor: str, column: str) -> str | None:
        return f"({column} & 4095)" if vendor in {"postgresql", "sqlite"} else None
