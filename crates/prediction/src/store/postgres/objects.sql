-- Version 2: pictures that lie in a bucket. Nodes of version 1 go on beside it: they know nothing of these tables, but
-- what they remove is removed here, too. See schema.sql.

CREATE TABLE syncdiffusion.objects (
    seq bigint NOT NULL REFERENCES syncdiffusion.predictions ON DELETE CASCADE,
    kind text NOT NULL,
    n integer NOT NULL,
    media text NOT NULL,
    file text,
    size bigint NOT NULL,
    -- Its name in the folder of these servers; never used again.
    key text NOT NULL UNIQUE,
    PRIMARY KEY (seq, kind, n)
);
CREATE UNIQUE INDEX objects_file ON syncdiffusion.objects (file) WHERE file IS NOT NULL;

-- Objects that no row names any more, and that are still in the bucket.
CREATE TABLE syncdiffusion.unneeded_objects (key text PRIMARY KEY);

CREATE FUNCTION syncdiffusion.outdate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR old.key <> new.key THEN
        INSERT INTO syncdiffusion.unneeded_objects VALUES (old.key) ON CONFLICT DO NOTHING;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER outdate AFTER UPDATE OR DELETE ON syncdiffusion.objects
    FOR EACH ROW EXECUTE FUNCTION syncdiffusion.outdate();
