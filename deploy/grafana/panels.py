"""The description of the dashboard: what can be chosen, and its rows. `make.py` writes the JSON of it."""

from __future__ import annotations

from fleet import FLEET
from one_token import ONE_TOKEN
from parts import Variable, metric
from sinks import ENDPOINTS, VAULT

VARIABLES = (
    Variable("job", "Job", "The jobs of Prometheus that scrape aca-tokend.", "aca_tokend_build_info", ".+"),
    Variable(
        "namespace",
        "Namespace",
        "Namespaces of Kubernetes; leave it at All where there are none.",
        'aca_tokend_build_info{job=~"$job"}',
        ".*",
    ),
    Variable("endpoint", "Endpoint", "For the row Endpoints.", metric("endpoint_demand_ratio"), ".+"),
    Variable("token", "Token", "For the row of one token.", metric("token_ready")),
)

ROWS = (FLEET, ENDPOINTS, VAULT, ONE_TOKEN)
