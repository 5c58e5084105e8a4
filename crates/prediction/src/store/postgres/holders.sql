-- Version 3: who may hold predictions. A row of `nodes` changes with every beat, and while a snapshot is held all that it
-- was stays before it, for whoever looks for it. These rows never change. Nodes of the versions before go on with
-- `nodes` alone. See schema.sql.

-- First what locks nothing: a role that may not make tables finds out before anybody waits for it.
CREATE TABLE syncdiffusion.holders (node bigint PRIMARY KEY);

-- It acts as the owner of the tables. A role of nodes of the versions before may not know of them.
CREATE FUNCTION syncdiffusion.follow() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        -- A dump may have filled both tables.
        INSERT INTO syncdiffusion.holders VALUES (new.node) ON CONFLICT DO NOTHING;
    ELSE
        DELETE FROM syncdiffusion.holders WHERE node = old.node;
        -- This has waited for what was just accepted, which whoever removes the node may not have seen.
        UPDATE syncdiffusion.predictions SET keeper = NULL
            WHERE keeper = old.node AND (owed OR completed_at IS NULL) IS TRUE;
    END IF;
    RETURN NULL;
END $$;

-- In the order of `claim` and `accept`, so that it meets none of them half way. `reap` and whoever leaves take these
-- tables the other way round: then one of them is told of a deadlock, and tries again (`bring`).
LOCK TABLE syncdiffusion.predictions, syncdiffusion.nodes IN ACCESS EXCLUSIVE MODE;

INSERT INTO syncdiffusion.holders SELECT node FROM syncdiffusion.nodes;
CREATE TRIGGER follow AFTER INSERT OR DELETE ON syncdiffusion.nodes
    FOR EACH ROW EXECUTE FUNCTION syncdiffusion.follow();

-- What is there was checked by the key before, so nobody waits while it is read.
ALTER TABLE syncdiffusion.predictions DROP CONSTRAINT predictions_node_fkey,
    ADD CONSTRAINT predictions_holder FOREIGN KEY (node) REFERENCES syncdiffusion.holders NOT VALID;
