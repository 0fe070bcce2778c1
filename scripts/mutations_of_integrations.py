"""
The mutations of forms, the admin and REST framework: what is wrong is not told, and lists cost a query for each row.
"""

from __future__ import annotations

from scripts.mutation_list import Mutation

LISTS = ("tests/contrib/test_admin_lists.py",)
ROWS = ("tests/contrib/test_admin_rows.py", "tests/contrib/test_admin_options.py")
REST = ("tests/contrib/test_rest.py",)
FORMS = ("tests/test_validation.py",)

MUTATIONS = [
    Mutation(
        "columns of other databases cost a query for each row",
        "aggregator/contrib/admin/changelist.py",
        "        if self.attached and isinstance(self.result_list, QuerySet):\n",
        "        if False:\n",
        LISTS,
    ),
    Mutation(
        "a list is ordered by another database's rows",
        "aggregator/contrib/admin/changelist.py",
        "        if field is None or paths.is_joined(field):\n",
        "        if True:\n",
        LISTS,
    ),
    Mutation(
        "the page before a deletion costs a query for each row",
        "aggregator/contrib/admin/deleting.py",
        "        return attach(found, *attached) if attached else found\n",
        "        return found\n",
        ROWS,
    ),
    Mutation(
        "the shard key of a stored row is a field of its form",
        "aggregator/contrib/admin/options.py",
        "        return [*fields, entry.key]\n",
        "        return fields\n",
        ROWS,
    ),
    Mutation(
        "an inline's new rows are checked without their key",
        "sharding/models.py",
        "        if self.__dict__.get(entry.key_attname) is None:\n            scopes.complete(self, entry)\n",
        "",
        ROWS,
    ),
    Mutation(
        "what is unique with the shard key is not checked where a form does not show the key",
        "sharding/validation.py",
        "    return names - {entry.key} if known and not _is_unique_alone(entry) else names\n",
        "    return names\n",
        FORMS,
    ),
    Mutation(
        "a form that does not show the key is told an error of it",
        "sharding/validation.py",
        "known and not _is_unique_alone(entry)",
        "known",
        FORMS,
    ),
    Mutation(
        "a wrong key is looked up",
        "sharding/validation.py",
        " and entry.key not in _errors(entry, instance)\n",
        "\n",
        ROWS,
    ),
    Mutation(
        "a copied row is told that its key has changed",
        "sharding/validation.py",
        "    is_new = instance._state.adding or not instance._is_pk_set()  # type: ignore[attr-defined]\n",
        "    is_new = instance._state.adding\n",
        FORMS,
    ),
    Mutation(
        "a condition without a model is asked of the control database",
        "sharding/backends/compilers.py",
        "            if bucket is not None:\n                return owned",
        "            if False:\n                return owned",
        ("tests/test_conditions.py",),
    ),
    Mutation(
        "a serializer looks for a value that is unique over the cluster inside the scope",
        "aggregator/contrib/rest_framework/validators.py",
        "        with scopes.outside(self.entry), routing.probe():\n",
        "        with routing.probe():\n",
        REST,
    ),
    Mutation(
        "rows without a value conflict",
        "aggregator/contrib/rest_framework/validators.py",
        "        if None in values.values():\n            return\n",
        "",
        REST,
    ),
    Mutation(
        "what the view gives a new row is not checked",
        "aggregator/contrib/rest_framework/serializers.py",
        "        self._verify(validated_data)\n        return super().create(validated_data)\n",
        "        return super().create(validated_data)\n",
        REST,
    ),
    Mutation(
        "a cursor of another origin is a server error",
        "aggregator/contrib/rest_framework/pagination.py",
        "            raise NotFound(self.invalid_cursor_message) from error\n",
        "            raise\n",
        ("tests/contrib/test_rest_pages.py",),
    ),
]
