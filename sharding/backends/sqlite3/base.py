"""The ENGINE "sharding.backends.sqlite3": Django's SQLite backend with the seam, for development."""

from __future__ import annotations

from django.db.backends.sqlite3 import base, creation, introspection, operations, schema

from sharding.backends.schema_editor import ClusterSchemaEditor
from sharding.backends.wrapper import ClusterCreation, ClusterIntrospection, ClusterOperations, ClusterWrapper


class DatabaseCreation(ClusterCreation, creation.DatabaseCreation):
    pass


class DatabaseIntrospection(ClusterIntrospection, introspection.DatabaseIntrospection):
    pass


class DatabaseOperations(ClusterOperations, operations.DatabaseOperations):
    pass


class DatabaseSchemaEditor(ClusterSchemaEditor, schema.DatabaseSchemaEditor):
    pass


class DatabaseWrapper(ClusterWrapper, base.DatabaseWrapper):
    creation_class = DatabaseCreation
    introspection_class = DatabaseIntrospection
    ops_class = DatabaseOperations
    SchemaEditorClass = DatabaseSchemaEditor
