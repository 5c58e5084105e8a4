-- Version 3: who may hold predictions. A row of `nodes` changes with every beat, and while a snapshot is held all that it
-- was stays before it, for whoever looks for it. These rows never change. Nodes of the versions before go on with
-- `nodes` alone. See schema.sql.

-- In this order, so that it meets no `claim` and no `accept` half way.
LOCK TABLE syncdiffusion.predictions, syncdiffusion.nodes IN ACCESS EXCLUSIVE MODE;

CREATE TABLE syncdiffusion.holders (node bigint PRIMARY KEY);
INSERT INTO syncdiffusion.holders SELECT node FROM syncdiffusion.nodes;

CREATE FUNCTION syncdiffusion.follow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO syncdiffusion.holders VALUES (new.node);
    ELSE
        DELETE FROM syncdiffusion.holders WHERE node = old.node;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER follow AFTER INSERT OR DELETE ON syncdiffusion.nodes
    FOR EACH ROW EXECUTE FUNCTION syncdiffusion.follow();

-- What is there was checked by the key before, so nobody waits while it is read.
ALTER TABLE syncdiffusion.predictions DROP CONSTRAINT predictions_node_fkey,
    ADD CONSTRAINT predictions_holder FOREIGN KEY (node) REFERENCES syncdiffusion.holders NOT VALID;
