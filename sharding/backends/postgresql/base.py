"""The ENGINE "sharding.backends.postgresql": Django's PostgreSQL backend with the seam."""

from __future__ import annotations

from django.db.backends.postgresql import base, creation, introspection, operations, schema

from sharding.backends.postgresql.cursors import WatchedCursors
from sharding.backends.postgresql.id_checks import IdChecks
from sharding.backends.postgresql.sessions import NamedSessions
from sharding.backends.schema_editor import ClusterSchemaEditor
from sharding.backends.wrapper import ClusterCreation, ClusterIntrospection, ClusterOperations, ClusterWrapper


class DatabaseCreation(ClusterCreation, creation.DatabaseCreation):
    pass


class DatabaseIntrospection(ClusterIntrospection, introspection.DatabaseIntrospection):
    pass


class DatabaseOperations(ClusterOperations, operations.DatabaseOperations):
    pass


class DatabaseSchemaEditor(IdChecks, ClusterSchemaEditor, schema.DatabaseSchemaEditor):
    pass


class DatabaseWrapper(WatchedCursors, NamedSessions, ClusterWrapper, base.DatabaseWrapper):
    creation_class = DatabaseCreation
    introspection_class = DatabaseIntrospection
    ops_class = DatabaseOperations
    SchemaEditorClass = DatabaseSchemaEditor
