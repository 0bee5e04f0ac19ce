#!/usr/bin/env bash
# Before SIGTERM: has Envoy refuse new calls and lets open ones end.
#   drain.sh PATIENCE [ADMIN [SETTLE]]
# PATIENCE: seconds, at most. ADMIN: host/port of Envoy's admin interface. SETTLE: seconds in which other
# nodes learn that this pod is not ready any more.
set -u
patience="${1:?seconds}"
admin="${2:-127.0.0.1/9901}"
settle="${3:-5}"

ask() { # METHOD PATH: the answer of Envoy's admin interface
  exec 3<>"/dev/tcp/$admin" || return 1
  printf '%s %s HTTP/1.1\r\nHost: admin\r\nContent-Length: 0\r\nConnection: close\r\n\r\n' "$1" "$2" >&3
  cat <&3
  exec 3>&-
}

# Readiness fails from here on, so that no Service sends new connections; those that are there are
# asked to close after their call.
ask POST /healthcheck/fail >/dev/null || exit 0
ask POST '/drain_listeners?graceful&skip_exit' >/dev/null
sleep "$settle"
while ((SECONDS < patience)); do
  open="$(ask GET '/stats?filter=^http.egress.downstream_rq_active$' | tr -d '\r' |
    sed -n 's/^http.egress.downstream_rq_active: //p')"
  echo "$open open"
  [[ "$open" == 0 || -z "$open" ]] && exit 0
  sleep 1
done
