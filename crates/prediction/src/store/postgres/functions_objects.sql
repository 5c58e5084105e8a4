-- The transitions of pictures that lie in a bucket: see objects.sql.

-- Notes pictures that lie in the bucket, in place of those they name.
CREATE OR REPLACE FUNCTION syncdiffusion.put_objects(
    number bigint, kinds text[], numbers integer[], medias text[], files text[], sizes bigint[], keys text[]
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO syncdiffusion.objects AS o (seq, kind, n, media, file, size, key)
        SELECT number, * FROM unnest(kinds, numbers, medias, files, sizes, keys)
        ON CONFLICT (seq, kind, n) DO UPDATE
            SET media = excluded.media, file = excluded.file, size = excluded.size, key = excluded.key;
    UPDATE syncdiffusion.predictions SET bytes = syncdiffusion.weight(number) WHERE seq = number;
END $$;

-- `accept` of a prediction whose pictures lie in the bucket.
CREATE OR REPLACE FUNCTION syncdiffusion.accept_with_objects(
    me bigint, new_request uuid, new_id text, new_tenant text, new_key text, idempotent boolean,
    new_units double precision, new_wire integer, new_version text, new_record text,
    free bigint, jobs bigint, most_units double precision, more bigint, more_units double precision,
    kinds text[], numbers integer[], medias text[], files text[], sizes bigint[], keys text[],
    OUT new_seq bigint, OUT known bigint, OUT waiting bigint, OUT units double precision
) LANGUAGE plpgsql AS $$
BEGIN
    SELECT a.new_seq, a.known, a.waiting, a.units INTO new_seq, known, waiting, units
        FROM syncdiffusion.accept(
            me, new_request, new_id, new_tenant, new_key, idempotent, new_units, new_wire, new_version, new_record,
            free, jobs, most_units, more, more_units, '{}', '{}', '{}', '{}', '{}'
        ) a;
    IF new_seq IS NOT NULL THEN
        PERFORM syncdiffusion.put_objects(new_seq, kinds, numbers, medias, files, sizes, keys);
    END IF;
END $$;

-- `finish` with pictures that lie in the bucket.
CREATE OR REPLACE FUNCTION syncdiffusion.finish_with_objects(
    number bigint, token uuid, new_status text, new_record text, canceled_record text, began_at bigint, ended_at bigint,
    new_file text, owes boolean, megapixels double precision, seconds double precision,
    kinds text[], numbers integer[], medias text[], files text[], sizes bigint[], keys text[]
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    canceled boolean;
BEGIN
    canceled := syncdiffusion.finish(
        number, token, new_status, new_record, canceled_record, began_at, ended_at, new_file, owes, megapixels, seconds,
        '{}', '{}', '{}', '{}', '{}'
    );
    IF NOT canceled THEN
        PERFORM syncdiffusion.put_objects(number, kinds, numbers, medias, files, sizes, keys);
    END IF;
    RETURN canceled;
END $$;
