-- For tests: refuses to change what has ended. To be executed by a superuser in a database that is to be a fleet's; it
-- waits there, and in what is copied from it, until a server makes the tables.

CREATE FUNCTION public.refuse_end() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF OLD.status IN ('succeeded', 'failed', 'canceled') AND OLD.seq = NEW.seq
        AND (OLD.status <> NEW.status OR OLD.record <> NEW.record) THEN
        RAISE EXCEPTION 'prediction % ends twice', OLD.id;
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION public.refuse_output() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF OLD.kind = 'output' AND OLD.bytes <> NEW.bytes THEN
        RAISE EXCEPTION 'the output of number % ends twice', OLD.seq;
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION public.guard() RETURNS event_trigger LANGUAGE plpgsql AS $$
DECLARE
    made text;
BEGIN
    FOR made IN SELECT object_identity FROM pg_event_trigger_ddl_commands() LOOP
        IF made = 'syncdiffusion.predictions' THEN
            CREATE OR REPLACE TRIGGER refuse BEFORE UPDATE ON syncdiffusion.predictions
                FOR EACH ROW EXECUTE FUNCTION public.refuse_end();
        ELSIF made = 'syncdiffusion.pictures' THEN
            CREATE OR REPLACE TRIGGER refuse BEFORE UPDATE ON syncdiffusion.pictures
                FOR EACH ROW EXECUTE FUNCTION public.refuse_output();
        END IF;
    END LOOP;
END $$;

CREATE EVENT TRIGGER guard ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION public.guard();
