-- What a step has made belongs to whom `nodes` belongs to, and who may use that may use it: servers of the version before
-- may have a role that owns nothing. No tables are looked at that were there before, which `syncdiffusion.tables_before`
-- names: to change the owner of a table is to lock it.
DO $$
DECLARE
    statement text;
BEGIN
    FOR statement IN
        WITH ours AS (
            SELECT relowner, coalesce(relacl, acldefault('r', relowner)) AS relacl,
                has_schema_privilege(relowner, 'syncdiffusion', 'CREATE') AS can_own
            FROM pg_class WHERE oid = 'syncdiffusion.nodes'::regclass
        ),
        made AS (
            SELECT oid, relowner FROM pg_class
            WHERE relnamespace = 'syncdiffusion'::regnamespace AND relkind = 'r'
                AND oid <> ALL (string_to_array(current_setting('syncdiffusion.tables_before'), ' ')::oid[])
        )
        SELECT format('ALTER TABLE %s OWNER TO %I', m.oid::regclass, pg_get_userbyid(o.relowner)) FROM ours o, made m
            WHERE m.relowner <> o.relowner AND o.can_own
        UNION ALL
        SELECT format('ALTER FUNCTION %s OWNER TO %I', p.oid::regprocedure, pg_get_userbyid(o.relowner))
            FROM ours o, pg_proc p
            WHERE p.pronamespace = 'syncdiffusion'::regnamespace AND p.proowner <> o.relowner AND o.can_own
        UNION ALL
        SELECT format(
                'GRANT %s ON %s TO %s%s', a.privilege_type, m.oid::regclass,
                CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END,
                CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
            )
            FROM ours o, made m, aclexplode(o.relacl) a
            WHERE a.grantee <> CASE WHEN o.can_own THEN o.relowner ELSE m.relowner END
    LOOP
        EXECUTE statement;
    END LOOP;
END $$;
