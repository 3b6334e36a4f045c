"""What the parse tree's nodes and PostgreSQL's own functions mean to policies. Pure.

A node or a statement that is not named here is not understood (`Facts.unknown`).
"""

from __future__ import annotations

import re
from typing import Final

# Class of each statement that changes what a database is rather than what it holds.
DDL: Final[dict[str, str]] = {
    "AlterCollationStmt": "alter",
    "AlterDatabaseRefreshCollStmt": "alter",
    "AlterDatabaseSetStmt": "alter",
    "AlterDatabaseStmt": "alter",
    "AlterDefaultPrivilegesStmt": "grant",
    "AlterDomainStmt": "alter",
    "AlterEnumStmt": "alter",
    "AlterEventTrigStmt": "alter",
    "AlterExtensionContentsStmt": "extension",
    "AlterExtensionStmt": "extension",
    "AlterFdwStmt": "extension",
    "AlterForeignServerStmt": "alter",
    "AlterFunctionStmt": "alter",
    "AlterObjectDependsStmt": "alter",
    "AlterObjectSchemaStmt": "alter",
    "AlterOpFamilyStmt": "alter",
    "AlterOperatorStmt": "alter",
    "AlterOwnerStmt": "alter",
    "AlterPolicyStmt": "alter",
    "AlterPublicationStmt": "alter",
    "AlterRoleSetStmt": "role",
    "AlterRoleStmt": "role",
    "AlterSeqStmt": "alter",
    "AlterStatsStmt": "alter",
    "AlterSubscriptionStmt": "alter",
    "AlterSystemStmt": "system",
    "AlterTSConfigurationStmt": "alter",
    "AlterTSDictionaryStmt": "alter",
    "AlterTableMoveAllStmt": "alter",
    "AlterTableSpaceOptionsStmt": "alter",
    "AlterTableStmt": "alter",
    "AlterTypeStmt": "alter",
    "AlterUserMappingStmt": "role",
    "ClusterStmt": "maintenance",
    "CommentStmt": "comment",
    "CompositeTypeStmt": "create",
    "CreateAmStmt": "extension",
    "CreateCastStmt": "create",
    "CreateConversionStmt": "create",
    "CreateDomainStmt": "create",
    "CreateEnumStmt": "create",
    "CreateEventTrigStmt": "create",
    "CreateExtensionStmt": "extension",
    "CreateFdwStmt": "extension",
    "CreateForeignServerStmt": "create",
    "CreateForeignTableStmt": "create",
    "CreateFunctionStmt": "create",
    "CreateOpClassStmt": "create",
    "CreateOpFamilyStmt": "create",
    "CreatePLangStmt": "extension",
    "CreatePolicyStmt": "create",
    "CreatePublicationStmt": "create",
    "CreateRangeStmt": "create",
    "CreateRoleStmt": "role",
    "CreateSchemaStmt": "create",
    "CreateSeqStmt": "create",
    "CreateStatsStmt": "create",
    "CreateStmt": "create",
    "CreateSubscriptionStmt": "create",
    "CreateTableAsStmt": "create",
    "CreateTableSpaceStmt": "create",
    "CreateTransformStmt": "create",
    "CreateTrigStmt": "create",
    "CreateUserMappingStmt": "role",
    "CreatedbStmt": "create",
    "DefineStmt": "create",
    "DropOwnedStmt": "drop",
    "DropRoleStmt": "role",
    "DropStmt": "drop",
    "DropSubscriptionStmt": "drop",
    "DropTableSpaceStmt": "drop",
    "DropUserMappingStmt": "role",
    "DropdbStmt": "drop",
    "GrantRoleStmt": "role",
    "GrantStmt": "grant",
    "ImportForeignSchemaStmt": "create",
    "IndexStmt": "create",
    "ReassignOwnedStmt": "role",
    "RefreshMatViewStmt": "maintenance",
    "ReindexStmt": "maintenance",
    "RenameStmt": "alter",
    "ReplicaIdentityStmt": "alter",
    "RuleStmt": "create",
    "SecLabelStmt": "alter",
    "TruncateStmt": "truncate",
    "VacuumStmt": "maintenance",
    "ViewStmt": "create",
}

# Statements that touch neither relations nor functions but through what they hold.
PLAIN_STATEMENTS: Final = frozenset(
    {
        "CheckPointStmt", "ClosePortalStmt", "ConstraintsSetStmt", "DeallocateStmt",
        "DeclareCursorStmt", "DiscardStmt", "ExplainStmt", "FetchStmt", "ListenStmt", "LockStmt",
        "NotifyStmt", "PrepareStmt", "ReturnStmt", "TransactionStmt", "UnlistenStmt",
        "VariableShowStmt",
    }
)  # fmt: skip

# Nodes that mean what they hold.
PLAIN_NODES: Final = frozenset(
    {
        "A_ArrayExpr", "A_Indices", "A_Star", "ATAlterConstraint", "AccessPriv", "AlterTableCmd",
        "BoolExpr", "BooleanTest", "CTECycleClause", "CTESearchClause", "CaseExpr", "CaseWhen",
        "CoalesceExpr", "CollateClause", "ColumnDef", "Constraint", "CreateOpClassItem",
        "CurrentOfExpr", "DefElem", "FunctionParameter", "GroupingFunc", "GroupingSet", "IndexElem",
        "InferClause", "JsonAggConstructor", "JsonArgument", "JsonArrayAgg",
        "JsonArrayConstructor", "JsonArrayQueryConstructor", "JsonBehavior", "JsonFormat",
        "JsonFuncExpr", "JsonIsPredicate", "JsonKeyValue", "JsonObjectAgg",
        "JsonObjectConstructor", "JsonOutput", "JsonParseExpr", "JsonReturning",
        "JsonScalarExpr", "JsonSerializeExpr", "JsonTableColumn", "JsonTablePathSpec",
        "JsonValueExpr", "List", "LockingClause", "MergeSupportFunc", "MinMaxExpr",
        "MultiAssignRef", "NamedArgExpr", "NullTest", "ObjectWithArgs", "PartitionBoundSpec",
        "PartitionCmd", "PartitionElem", "PartitionRangeDatum", "PartitionSpec",
        "PublicationObjSpec", "RangeTableFuncCol", "RoleSpec",
        "PublicationTable", "ResTarget", "ReturningClause",
        "ReturningOption", "RowExpr", "SQLValueFunction", "SetToDefault", "SortBy",
        "StatsElem", "TriggerTransition", "VacuumRelation", "WindowDef", "XmlExpr",
        "XmlSerialize",
    }
)  # fmt: skip

# Nodes that name no relation and run nothing.
LEAVES: Final = frozenset(
    {
        "A_Const", "BitString", "Boolean", "Float", "Integer", "ParamRef", "String", "TypeName",
        # Inlined under these keys.
        "typeName", "argType", "returnType", "funcname", "collname", "roles", "grantees",
        "newowner", "usingClause", "alias", "join_using_alias", "ival", "fval", "sval", "boolval",
        "bsval",
    }
)  # fmt: skip

SYSTEM_COLUMNS: Final = frozenset({"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"})

# Relations that a `DROP`, `COMMENT` or `ALTER` of these names.
RELATION_TYPES: Final = frozenset(
    {
        "OBJECT_TABLE", "OBJECT_VIEW", "OBJECT_MATVIEW", "OBJECT_FOREIGN_TABLE", "OBJECT_SEQUENCE",
        "OBJECT_INDEX",
    }
)  # fmt: skip
# Of these the last part names a thing of the relation before it.
PART_TYPES: Final = frozenset(
    {
        "OBJECT_COLUMN", "OBJECT_TRIGGER", "OBJECT_RULE", "OBJECT_POLICY", "OBJECT_TABCONSTRAINT",
    }
)  # fmt: skip

FILES: Final = re.compile(
    r"pg_(?:read_(?:binary_)?file\w*|ls_\w+|stat_file|file_\w+|logdir_ls|current_logfile"
    r"|export_\w*file|execute_server_program)"
    # Large objects are files of the server's own, outside of any table.
    r"|lo_\w+|loread|lowrite|file_fdw_handler"
)
LINKS: Final = re.compile(r"dblink\w*|postgres_fdw\w*|pg_(?:connect|background_launch)\w*|http_\w+")
# They act on the server or on others' sessions rather than on data.
ADMINISTERS: Final = re.compile(
    r"pg_(?:terminate_backend|cancel_backend|reload_conf|rotate_logfile\w*|promote|switch_wal"
    r"|switch_xlog|create_restore_point|backup_\w+|start_backup|stop_backup|wal_replay_\w+"
    r"|(?:create|drop|copy|advance)\w*_slot\w*|replication_\w+|replication_slot_advance|stat_reset\w*"
    r"|import_system_collations|log_backend_memory_contexts|sync_replication_slots"
    r"|logical_emit_message|set_relation_stats|restore_\w+_stats|clear_\w+_stats"
    r"|create_\w*replication\w*)"
)
# They read data that no name in their call leads to.
UNSEEN: Final = re.compile(
    r"pg_logical_slot_\w+|(?:query|cursor|table|schema|database)_to_xml\w*|ts_stat|ts_rewrite"
    r"|crosstab\w*|connectby|xpath_table|get_raw_page|heap_page_\w+|bt_page_\w+|pg_get_wal_\w+"
    r"|refint\w*|check_(?:primary|foreign)_key|autoinc|moddatetime|currtid2?|tuple_data_split"
    r"|pg_buffercache_\w+|plpgsql_check\w*|pg_visibility\w*|pg_dump_\w+|cron_\w+|job_\w+"
)
# The first argument of these is SQL text.
TEXTS: Final = re.compile(r"query_to_xml\w*|ts_stat|crosstab\w*")
# The first argument of these names a relation.
NAMED_READS: Final = re.compile(r"table_to_xml\w*|currval|pg_sequence_last_value")
NAMED_WRITES: Final = frozenset({"nextval", "setval"})
SETTERS: Final = frozenset({"set_config"})
UNSETTLING: Final = frozenset({"search_path", "role", "session_authorization"})

UNTRUSTED: Final = re.compile(r"\w+u|c|internal|pl(?:python|tcl|perl|java|sh|r|v8)\w*")
