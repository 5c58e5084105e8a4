"""Prints a test for promtool: what all servers of a fleet report alike, a dashboard counts once."""

import json
import sys

# Metrics of the whole fleet, as every server reports them.
WHOLE = ("syncdiffusion_queue_depth", "syncdiffusion_usage_")
# Two servers report: 6 wait, of which each says so; 2 workers are ready, one on each; a name uses 60 megapixels an hour.
SERIES = {
    'syncdiffusion_queue_depth{instance="a"}': "6x90",
    'syncdiffusion_queue_depth{instance="b"}': "6x90",
    'syncdiffusion_predictions_running{instance="a"}': "1x90",
    'syncdiffusion_predictions_running{instance="b"}': "1x90",
    'syncdiffusion_workers{instance="a",state="ready"}': "1x90",
    'syncdiffusion_workers{instance="b",state="ready"}': "1x90",
    'syncdiffusion_usage_megapixels_total{instance="a",name="n"}': "0+1x90",
    'syncdiffusion_usage_megapixels_total{instance="b",name="n"}': "0+1x90",
}
# What the panels that read such metrics must show, and one that adds up what each server has of its own.
WANTED = {
    ("Waiting", "A"): [("{}", 6)],
    ("Running", "A"): [("{}", 2)],
    ("Queue", "A"): [("{}", 6)],
    ("Queue", "B"): [("{}", 2)],
    ("Waiting, for each worker that is ready", "A"): [("{}", 3)],
    ("Megapixels in an hour, by name", "A"): [('{name="n"}', 60)],
    ("Waiting, as each server sees it", "A"): [('syncdiffusion_queue_depth{instance="a"}', 6), ('syncdiffusion_queue_depth{instance="b"}', 6)],
}


def main():
    with open(sys.argv[1]) as file:
        queries = {(panel["title"], target["refId"]): target["expr"] for panel in json.load(file)["panels"] for target in panel.get("targets", [])}
    whole = {key for key, query in queries.items() if any(name in query for name in WHOLE)}
    if unknown := whole - set(WANTED):
        sys.exit(f"say what these panels must show: {sorted(unknown)}")
    tests = [
        {
            "expr": queries[key].replace("$instance", ".*").replace("$__rate_interval", "5m"),
            "eval_time": "80m",
            "exp_samples": [{"labels": labels, "value": value} for labels, value in wanted],
        }
        for key, wanted in WANTED.items()
    ]
    series = [{"series": name, "values": values} for name, values in SERIES.items()]
    json.dump({"evaluation_interval": "1m", "tests": [{"interval": "1m", "input_series": series, "promql_expr_test": tests}]}, sys.stdout)


if __name__ == "__main__":
    main()
