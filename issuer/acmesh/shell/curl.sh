#!/bin/sh
# Stands before curl for acme.sh. What a CA answers is checked here before acme.sh puts it into shell text and file names:
# the token of a challenge is base64url (RFC 8555 §8.3), an answer is text of 1 MiB at most, and no CA leads elsewhere.
# What DNS hooks ask of their providers passes unchanged.
ca=""
for word in "$@"; do
  case "$word" in
  "Content-Type: application/jose+json" | "$CERTFERRY_CA"*) ca=1 ;;
  esac
done
[ "$ca" ] || exec "$CERTFERRY_CURL" "$@"

answer="$CERTFERRY_RUN/tmp/answer.$$"
(
  ulimit -f 2048
  exec "$CERTFERRY_CURL" "$@" --max-redirs 0 --max-filesize 1048576 --max-time 120 >"$answer"
) 2>/dev/null
code=$?
if [ "$code" -gt 128 ]; then
  code=63 # larger than it may be
fi
odd=$(LC_ALL=C tr -d '\011\012\015\040-\176\200-\377' <"$answer" | wc -c)
bad=$(LC_ALL=C tr -d '\r\n' <"$answer" | LC_ALL=C grep -o '"token" *: *"[^"]*"\{0,1\}' | LC_ALL=C grep -cv '^"token" *: *"[A-Za-z0-9_-]\{1,200\}"$')
if [ "$odd" -ne 0 ] || [ "$bad" -ne 0 ]; then
  printf 'the CA sent a token that is none\n' >"$CERTFERRY_RUN/ca.bad"
  code=8 # weird server reply
fi
case "$code" in
8 | 63) ;;
*) cat "$answer" ;;
esac
rm -f "$answer"
exit "$code"
