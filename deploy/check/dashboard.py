"""Prints the queries of a Grafana dashboard as recording rules, so that promtool can check them."""

import json
import pathlib
import sys

rules = []
for path in sys.argv[1:]:
    with open(path) as file:
        panels = json.load(file)["panels"]
    for panel in panels:
        for target in panel.get("targets", []):
            # Grafana fills these in.
            query = target["expr"].replace("$__rate_interval", "1m").replace("$instance", ".*")
            rules.append({"record": f"{pathlib.Path(path).stem}_{panel['id']}_{target['refId']}", "expr": query})
if not rules:
    sys.exit("the dashboard has no queries")
json.dump({"groups": [{"name": "dashboard", "rules": rules}]}, sys.stdout)
