#!/bin/sh
# What each container of compose.yaml runs; it runs without Docker too, from anywhere:
#   deploy/service.sh server              Prefect's server, as its PREFECT_SERVER_… settings say
#   deploy/service.sh healthy             is that server there? By the exit code
#   deploy/service.sh deploy              the work pool, and the deployments of prefect.yaml
#   deploy/service.sh worker [--limit 2]  runs them
# The last two find the server by PREFECT_API_URL.
set -eu
cd "$(dirname "$0")/.."
service=${1:-}
[ $# -eq 0 ] || shift
case $service in
  server) exec prefect server start "$@" ;;
  healthy)
    exec python -c 'import sys, urllib.request as r; r.urlopen(sys.argv[1], timeout=5)' \
      "http://127.0.0.1:${PREFECT_SERVER_API_PORT:-4200}/api/health"
    ;;
  deploy) exec thumbtune deploy ;;
  worker) exec prefect worker start --pool thumbtune "$@" ;;
  *)
    echo "deploy/service.sh: '$service' is no service. Give server, healthy, deploy or worker." >&2
    exit 2
    ;;
esac
