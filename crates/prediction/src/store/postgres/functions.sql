-- The transitions: see schema.sql, objects.sql and holders.sql.

-- How much waits: exactly while that is little, else as it was a second ago (`is_old`).
CREATE OR REPLACE FUNCTION syncdiffusion.waits(OUT waiting bigint, OUT units double precision, OUT is_old boolean)
LANGUAGE plpgsql AS $$
DECLARE
    b record;
BEGIN
    -- What was said in the future was said before the clock was set back.
    SELECT board.waiting, board.units,
            board.at BETWEEN clock_timestamp() - interval '5 seconds' AND clock_timestamp() AND board.waiting > 1000 AS old
        INTO b FROM syncdiffusion.board;
    is_old := b.old;
    IF is_old THEN
        waiting := b.waiting;
        units := b.units;
    ELSE
        SELECT count(*), coalesce(sum(p.units), 0) INTO waiting, units
            FROM syncdiffusion.predictions p
            WHERE p.status = 'starting' AND p.rank >= (SELECT floor FROM syncdiffusion.board);
    END IF;
END $$;

-- Sums up what ends have added to the usage.
CREATE OR REPLACE FUNCTION syncdiffusion.sum_usage() RETURNS void LANGUAGE sql AS $$
    WITH ends AS (
        DELETE FROM syncdiffusion.usage_of_ends
            WHERE ctid = ANY (ARRAY(SELECT ctid FROM syncdiffusion.usage_of_ends LIMIT 100000)) RETURNING *
    )
    INSERT INTO syncdiffusion.usage AS u
        SELECT name, sum(predictions), sum(succeeded), sum(megapixels), sum(seconds) FROM ends GROUP BY name
        ON CONFLICT (name) DO UPDATE SET predictions = u.predictions + excluded.predictions,
            succeeded = u.succeeded + excluded.succeeded, megapixels = u.megapixels + excluded.megapixels,
            seconds = u.seconds + excluded.seconds;
$$;

-- Brings the board up to date, once a second for all nodes; to be called in a transaction of its own.
--
-- What is accepted gets a rank above all that was claimed before. So nothing new comes below a mark, once all
-- transactions have ended that may have looked at the queue before it was set: these are the ones numbered before a
-- number that is taken after the look, because `accept` takes its own before it looks. A number that is not taken yet is
-- one of another server, from which the tables were restored or replicated: nothing of that one looks at this queue.
--
-- A time that is to come was written before the clock was set back.
CREATE OR REPLACE FUNCTION syncdiffusion.refresh() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    b record;
    came double precision;
    settled boolean;
    n bigint;
    u double precision;
    first double precision;
BEGIN
    SELECT greatest(low, (SELECT max(p.rank) FROM syncdiffusion.predictions p WHERE p.begun)) INTO came
        FROM syncdiffusion.board WHERE at NOT BETWEEN clock_timestamp() - interval '1 second' AND clock_timestamp();
    IF NOT FOUND THEN RETURN; END IF;
    SELECT * INTO b FROM syncdiffusion.board
        WHERE at NOT BETWEEN clock_timestamp() - interval '1 second' AND clock_timestamp() FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN RETURN; END IF;
    settled := pg_snapshot_xmin(pg_current_snapshot()) >= b.marked
        OR pg_snapshot_xmax(pg_current_snapshot()) <= b.marked;
    SELECT count(*), coalesce(sum(p.units), 0), min(p.rank) INTO n, u, first
        FROM syncdiffusion.predictions p WHERE p.status = 'starting' AND p.rank >= b.floor;
    UPDATE syncdiffusion.board SET
        floor = CASE WHEN settled THEN greatest(b.floor, least(b.mark, first)) ELSE b.floor END,
        mark = CASE WHEN settled THEN came ELSE b.mark END,
        marked = CASE WHEN settled THEN pg_current_xact_id() ELSE b.marked END,
        at = clock_timestamp(), waiting = n, units = u;
    IF b.summed NOT BETWEEN clock_timestamp() - interval '30 seconds' AND clock_timestamp() THEN
        PERFORM syncdiffusion.sum_usage();
        -- What was said in the moment of an end.
        DELETE FROM syncdiffusion.progress g WHERE NOT EXISTS (
            SELECT FROM syncdiffusion.predictions p
            WHERE p.seq = g.seq AND p.claim = g.claim AND p.status = 'processing'
        );
        UPDATE syncdiffusion.board SET summed = clock_timestamp();
    END IF;
END $$;

-- Lowers the floor to what comes back into the queue. Whoever brings something back has locked the board before:
-- `refresh` could set a mark above it meanwhile, which nobody would see in time.
CREATE OR REPLACE FUNCTION syncdiffusion.lower_floor(rank double precision) RETURNS void LANGUAGE sql AS $$
    UPDATE syncdiffusion.board SET floor = least(floor, $1), mark = least(mark, $1) WHERE floor > $1 OR mark > $1;
$$;

-- Removes predictions with their pictures, and remembers how far the queue had come.
CREATE OR REPLACE FUNCTION syncdiffusion.remove(numbers bigint[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    highest double precision;
BEGIN
    SELECT max(rank) INTO highest FROM syncdiffusion.predictions WHERE seq = ANY(numbers) AND begun;
    DELETE FROM syncdiffusion.predictions WHERE seq = ANY(numbers);
    DELETE FROM syncdiffusion.progress WHERE seq = ANY(numbers);
    -- Several may have the same rank, and others may remove them in this moment: each of those here remembers it.
    IF highest IS NOT NULL
        AND NOT EXISTS (SELECT FROM syncdiffusion.predictions WHERE begun AND rank > highest) THEN
        UPDATE syncdiffusion.board SET low = highest WHERE low < highest;
    END IF;
END $$;

-- Stores pictures beside a prediction, in place of those they name.
CREATE OR REPLACE FUNCTION syncdiffusion.put(
    number bigint, kinds text[], numbers integer[], medias text[], files text[], contents bytea[]
) RETURNS void LANGUAGE sql AS $$
    INSERT INTO syncdiffusion.pictures AS p (seq, kind, n, media, file, bytes)
        SELECT number, * FROM unnest(kinds, numbers, medias, files, contents)
        ON CONFLICT (seq, kind, n) DO UPDATE SET media = excluded.media, file = excluded.file, bytes = excluded.bytes;
$$;

-- How much a prediction has of pictures, wherever they are.
CREATE OR REPLACE FUNCTION syncdiffusion.weight(number bigint) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT (SELECT coalesce(sum(length(p.bytes)), 0) FROM syncdiffusion.pictures p WHERE p.seq = number)::bigint
        + (SELECT coalesce(sum(o.size), 0) FROM syncdiffusion.objects o WHERE o.seq = number)::bigint;
$$;

-- The same as `put` for a prediction that may have pictures already.
CREATE OR REPLACE FUNCTION syncdiffusion.keep(
    number bigint, kinds text[], numbers integer[], medias text[], files text[], contents bytea[]
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM syncdiffusion.put(number, kinds, numbers, medias, files, contents);
    UPDATE syncdiffusion.predictions SET bytes = syncdiffusion.weight(number) WHERE seq = number;
END $$;

CREATE OR REPLACE FUNCTION syncdiffusion.size(contents bytea[]) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(sum(length(bytes)), 0)::bigint FROM unnest(contents) AS c (bytes);
$$;

-- Accepts a prediction: `new_seq` if it is new, `known` if there is one already, neither if there is no room. `more` was
-- accepted since the caller heard how much waits. How much waits is not told where nothing depended on it.
CREATE OR REPLACE FUNCTION syncdiffusion.accept(
    me bigint, new_request uuid, new_id text, new_tenant text, new_key text, idempotent boolean,
    new_units double precision, new_wire integer, new_version text, new_record text,
    free bigint, jobs bigint, most_units double precision, more bigint, more_units double precision,
    kinds text[], numbers integer[], medias text[], files text[], contents bytea[],
    OUT new_seq bigint, OUT known bigint, OUT waiting bigint, OUT units double precision
) LANGUAGE plpgsql AS $$
DECLARE
    old record;
    board record;
    number bigint;
BEGIN
    FOR attempt IN 1..5 LOOP
        SELECT p.seq, p.status, p.owed, p.request INTO old FROM syncdiffusion.predictions p WHERE p.id = new_id;
        IF old.request = new_request THEN
            new_seq := old.seq;
            RETURN;
        END IF;
        IF new_key IS NOT NULL THEN
            SELECT p.seq INTO known FROM syncdiffusion.predictions p WHERE p.tenant = new_tenant AND p.key = new_key;
            IF known IS NOT NULL THEN RETURN; END IF;
        END IF;
        IF old.seq IS NOT NULL AND (idempotent OR old.owed OR old.status IN ('starting', 'processing')) THEN
            known := old.seq;
            RETURN;
        END IF;
        IF jobs < 9223372036854775807 OR most_units < 'infinity' THEN
            SELECT * INTO board FROM syncdiffusion.waits();
            waiting := board.waiting + CASE WHEN board.is_old THEN more ELSE 0 END;
            units := board.units + CASE WHEN board.is_old THEN more_units ELSE 0 END;
            IF waiting >= jobs OR (waiting >= free AND units > most_units) THEN RETURN; END IF;
        END IF;
        -- Before it looks at the queue: see `refresh`.
        PERFORM pg_current_xact_id();
        IF old.seq IS NOT NULL THEN
            PERFORM syncdiffusion.remove(ARRAY[old.seq]);
        END IF;
        number := nextval('syncdiffusion.numbers');
        INSERT INTO syncdiffusion.predictions
            (seq, id, tenant, key, request, units, rank, wire, version, keeper, bytes, record)
            SELECT number, new_id, new_tenant, new_key, new_request, new_units,
                -- What is below the floor is not found.
                greatest(
                    b.low,
                    b.floor,
                    (SELECT max(p.rank) FROM syncdiffusion.predictions p WHERE p.begun),
                    (SELECT max(p.rank) FROM syncdiffusion.predictions p
                        WHERE p.tenant = new_tenant AND p.node IS NULL AND p.completed_at IS NULL
                            AND p.rank >= b.floor)
                ) + greatest(new_units, 1e-3),
                new_wire, new_version, (SELECT h.node FROM syncdiffusion.holders h WHERE h.node = me FOR KEY SHARE),
                syncdiffusion.size(contents), new_record
            FROM syncdiffusion.board b
            ON CONFLICT DO NOTHING;
        IF FOUND THEN
            IF cardinality(kinds) > 0 THEN
                PERFORM syncdiffusion.put(number, kinds, numbers, medias, files, contents);
            END IF;
            new_seq := number;
            waiting := waiting + 1;
            units := units + new_units;
            RETURN;
        END IF;
        -- Another node was quicker: look again.
    END LOOP;
    RAISE EXCEPTION 'another node accepts the same prediction' USING ERRCODE = 'serialization_failure';
END $$;

-- Claims what comes next. What was interrupted before is claimed alone, and nothing passes it.
CREATE OR REPLACE FUNCTION syncdiffusion.claim(
    me bigint, places bigint, alone boolean, waited interval, most_wire integer, most_units double precision,
    own_version text, claimed_at bigint
) RETURNS TABLE (
    seq bigint, claim uuid, attempts integer, units double precision, tenant text, record text, rank double precision
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
        WITH next AS MATERIALIZED (
            SELECT p.seq, p.rank, p.attempts > 0 AS suspect FROM syncdiffusion.predictions p
            WHERE p.status = 'starting' AND p.rank >= (SELECT floor FROM syncdiffusion.board)
                AND p.wire <= most_wire AND p.units <= most_units
                -- Also what was queued before the clock was set back.
                AND (p.queued_at <= clock_timestamp() - waited OR p.queued_at > clock_timestamp())
                AND (own_version IS NULL OR p.version IS NULL OR p.version = own_version)
            ORDER BY p.rank, p.seq LIMIT places FOR UPDATE OF p SKIP LOCKED
        ), alive AS MATERIALIZED (
            -- A node that is taken for dead in this moment finds out here, and not by the key of the table. It does not
            -- wait for that: `reap` locks holders first. To lock takes a number of the transactions, which are not for a
            -- queue that is empty.
            SELECT h.node FROM syncdiffusion.holders h WHERE h.node = me AND EXISTS (SELECT FROM next)
            FOR KEY SHARE SKIP LOCKED
        ), placed AS (
            SELECT seq, suspect, row_number() OVER line AS at, count(*) FILTER (WHERE suspect) OVER line AS suspects
            FROM next WINDOW line AS (ORDER BY rank, seq)
        )
        UPDATE syncdiffusion.predictions p
            SET status = 'processing', node = alive.node, claim = gen_random_uuid(), attempts = p.attempts + 1, begun = true,
                started_at = claimed_at
            FROM placed, alive
            WHERE p.seq = placed.seq AND (placed.suspects = 0 OR (alone AND placed.suspect AND placed.at = 1))
            RETURNING p.seq, p.claim, p.attempts, p.units, p.tenant, p.record, p.rank;
END $$;

-- Ends what is held under a token; null if it is not. Otherwise, whether it ended as canceled because it was asked to.
CREATE OR REPLACE FUNCTION syncdiffusion.finish(
    number bigint, token uuid, new_status text, new_record text, canceled_record text, began_at bigint, ended_at bigint,
    new_file text, owes boolean, megapixels double precision, seconds double precision,
    kinds text[], numbers integer[], medias text[], files text[], contents bytea[]
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    ended record;
BEGIN
    UPDATE syncdiffusion.predictions p
        SET status = CASE WHEN p.stop THEN 'canceled' ELSE new_status END,
            record = CASE WHEN p.stop THEN canceled_record ELSE new_record END,
            file = CASE WHEN p.stop THEN NULL ELSE new_file END,
            bytes = p.bytes + CASE WHEN p.stop THEN 0 ELSE syncdiffusion.size(contents) END,
            node = NULL, started_at = began_at, owed = owes,
            completed_at = coalesce(ended_at, (extract(epoch FROM clock_timestamp()) * 1e6)::bigint)
        WHERE p.seq = number AND p.claim = token AND p.status = 'processing'
        RETURNING p.stop, p.tenant, p.status INTO ended;
    IF NOT FOUND THEN RETURN NULL; END IF;
    IF NOT ended.stop AND cardinality(kinds) > 0 THEN
        PERFORM syncdiffusion.put(number, kinds, numbers, medias, files, contents);
    END IF;
    INSERT INTO syncdiffusion.usage_of_ends VALUES (
        ended.tenant, 1, (ended.status = 'succeeded')::integer,
        CASE WHEN ended.status = 'succeeded' THEN megapixels ELSE 0 END, seconds
    );
    DELETE FROM syncdiffusion.progress WHERE seq = number;
    RETURN ended.stop;
END $$;

-- Lets what is held under a token wait again, or ends it if it was asked to stop; null if it is not held.
CREATE OR REPLACE FUNCTION syncdiffusion.give_back(
    number bigint, token uuid, counted boolean, waiting_record text, canceled_record text, ended_at bigint,
    owes boolean, seconds double precision
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    back record;
BEGIN
    PERFORM FROM syncdiffusion.board FOR UPDATE;
    UPDATE syncdiffusion.predictions p
        SET status = CASE WHEN p.stop THEN 'canceled' ELSE 'starting' END,
            record = CASE WHEN p.stop THEN canceled_record ELSE waiting_record END,
            started_at = CASE WHEN p.stop THEN p.started_at END,
            completed_at = CASE WHEN p.stop THEN ended_at END,
            attempts = p.attempts - CASE WHEN counted OR p.stop THEN 0 ELSE 1 END,
            owed = p.stop AND owes, node = NULL, claim = CASE WHEN p.stop THEN p.claim END
        WHERE p.seq = number AND p.claim = token AND p.status = 'processing'
        RETURNING p.stop, p.rank, p.tenant INTO back;
    IF NOT FOUND THEN RETURN NULL; END IF;
    DELETE FROM syncdiffusion.progress WHERE seq = number;
    IF back.stop THEN
        INSERT INTO syncdiffusion.usage_of_ends VALUES (back.tenant, 1, 0, 0, seconds);
    ELSE
        PERFORM syncdiffusion.lower_floor(back.rank);
    END IF;
    RETURN back.stop;
END $$;

-- Stores the wish to stop a prediction, or its end if it waits; the status after it, null if it has ended already.
CREATE OR REPLACE FUNCTION syncdiffusion.stop(
    number bigint, its_id text, canceled_record text, ended_at bigint, owes boolean, seconds double precision
) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    asked record;
BEGIN
    UPDATE syncdiffusion.predictions p
        SET stop = true,
            status = CASE WHEN p.status = 'starting' THEN 'canceled' ELSE p.status END,
            record = CASE WHEN p.status = 'starting' THEN canceled_record ELSE p.record END,
            completed_at = CASE WHEN p.status = 'starting' THEN ended_at END,
            owed = p.status = 'starting' AND owes
        WHERE p.seq = number AND p.id = its_id AND p.status IN ('starting', 'processing')
        RETURNING p.status, p.tenant INTO asked;
    IF NOT FOUND THEN RETURN NULL; END IF;
    IF asked.status = 'canceled' THEN
        INSERT INTO syncdiffusion.usage_of_ends VALUES (asked.tenant, 1, 0, 0, seconds);
    END IF;
    RETURN asked.status;
END $$;

-- Takes a node for dead whose beat still is `stands`. Of what it held, `numbers` (under `tokens`) are known to the
-- caller, with the records of their ends. `moved` if the beat has moved or the node is gone, `again` if it holds more.
CREATE OR REPLACE FUNCTION syncdiffusion.reap(
    dead bigint, stands bigint, most_attempts integer, ended_at bigint,
    numbers bigint[], tokens uuid[], canceled_records text[], failed_records text[], owing boolean[],
    lasted double precision[],
    OUT outcome text, OUT canceled bigint[], OUT failed bigint[]
) LANGUAGE plpgsql AS $$
DECLARE
    first double precision;
BEGIN
    PERFORM FROM syncdiffusion.nodes n WHERE n.node = dead AND n.beat = stands FOR UPDATE;
    IF NOT FOUND THEN outcome := 'moved'; RETURN; END IF;
    PERFORM FROM syncdiffusion.holders h WHERE h.node = dead FOR UPDATE;
    IF EXISTS (
        SELECT FROM syncdiffusion.predictions p WHERE p.node = dead AND p.status = 'processing' AND NOT EXISTS (
            SELECT FROM unnest(numbers, tokens) AS k (seq, claim) WHERE k.seq = p.seq AND k.claim = p.claim
        )
    ) THEN outcome := 'again'; RETURN; END IF;
    PERFORM FROM syncdiffusion.board FOR UPDATE;
    WITH ended AS (
        UPDATE syncdiffusion.predictions p
            SET status = CASE WHEN p.stop THEN 'canceled' WHEN p.attempts >= most_attempts THEN 'failed'
                    ELSE 'starting' END,
                record = CASE WHEN p.stop THEN k.canceled WHEN p.attempts >= most_attempts THEN k.failed
                    ELSE p.record END,
                completed_at = CASE WHEN p.stop OR p.attempts >= most_attempts THEN ended_at END,
                started_at = CASE WHEN p.stop OR p.attempts >= most_attempts THEN p.started_at END,
                owed = k.owes AND (p.stop OR p.attempts >= most_attempts), node = NULL, claim = NULL
            FROM unnest(numbers, tokens, canceled_records, failed_records, owing, lasted)
                AS k (seq, claim, canceled, failed, owes, lasted)
            WHERE p.seq = k.seq AND p.claim = k.claim AND p.node = dead AND p.status = 'processing'
            RETURNING p.seq, p.status, p.rank, p.tenant, k.lasted
    ), counted AS (
        INSERT INTO syncdiffusion.usage_of_ends
            SELECT e.tenant, 1, 0, 0, e.lasted FROM ended e WHERE e.status <> 'starting'
    )
    SELECT coalesce(array_agg(e.seq) FILTER (WHERE e.status = 'canceled'), '{}'),
        coalesce(array_agg(e.seq) FILTER (WHERE e.status = 'failed'), '{}'),
        min(e.rank) FILTER (WHERE e.status = 'starting')
        INTO canceled, failed, first FROM ended e;
    PERFORM syncdiffusion.lower_floor(first) WHERE first IS NOT NULL;
    DELETE FROM syncdiffusion.progress WHERE seq = ANY(numbers);
    UPDATE syncdiffusion.predictions SET keeper = NULL
        WHERE keeper = dead AND (owed OR completed_at IS NULL) IS TRUE;
    DELETE FROM syncdiffusion.nodes WHERE node = dead;
    outcome := 'reaped';
END $$;
