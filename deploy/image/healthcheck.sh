#!/bin/bash
# Succeeds while the server accepts predictions. For images without curl.
exec 3<>"/dev/tcp/127.0.0.1/${PORT:-5000}" || exit 1
printf 'GET /ready HTTP/1.0\r\nHost: localhost\r\n\r\n' >&3
read -r _ status _ <&3 && [ "$status" = 200 ]
