#!/bin/sh
# Stands before curl for acme.sh. What a CA answers is checked here before acme.sh puts it into shell text and file names:
# the token of a challenge is base64url (RFC 8555 §8.3), an answer is text of 1 MiB at most, and no CA leads elsewhere.
# What DNS hooks ask of their providers passes unchanged.
#
# acme.sh asks a CA a dozen times for a certificate, so that this script starts nothing but curl.
# shellcheck disable=SC3045 # dash, bash, busybox and the BSDs know ulimit -S
ca=""
for word in "$@"; do
  case "$word" in
  "Content-Type: application/jose+json" | "$CERTFERRY_CA"*) ca=1 ;;
  esac
done
[ "$ca" ] || exec "$CERTFERRY_CURL" "$@"

LC_ALL=C
ulimit -S -v 65536 2>/dev/null # an answer without end ends this script
# Behind the answer stand a full stop, curl's exit code and a carriage return, so that line feeds at its end stay. The shell
# leaves NULs out: what is checked is what acme.sh gets.
answer=$(
  ulimit -S -v 1048576 2>/dev/null
  "$CERTFERRY_CURL" "$@" --max-redirs 0 --max-filesize 1048576 --max-time 120 2>/dev/null
  printf '.%s\r' "$?"
)
cr="${answer##*[0-9]}"
answer="${answer%"$cr"}"
code="${answer##*.}"
answer="${answer%.*}"
[ "${#answer}" -le 1048576 ] || code=63 # larger than it may be

# Lines are joined and tabs left out, then no control character may be there.
set -f
IFS="$cr	
"
# shellcheck disable=SC2086 # splitting is what this is about
set -- $answer
IFS=""
text="$*"
bad=""
case "$text" in
*[[:cntrl:]]*) bad=1 ;;
esac

# Split at quotes: "token", a colon, and the value, which another quote must end.
IFS='"'
# shellcheck disable=SC2086
set -- $text.
at=""
for part in "$@"; do
  case "$at" in
  name)
    case "$part" in
    *[!\ :]* | *:*:*) at="" ;;
    *:*) at=value ;;
    *) at="" ;;
    esac
    ;;
  value)
    at=""
    case "$part" in
    "" | *[!A-Za-z0-9_-]*) bad=1 ;;
    esac
    [ "${#part}" -le 200 ] || bad=1
    ;;
  esac
  [ "$part" != token ] || at=name
done

if [ "$bad" ]; then
  printf 'the CA sent a token that is none\n' >"$CERTFERRY_RUN/ca.bad"
  code=8 # weird server reply
fi
case "$code" in
8 | 63) ;;
*) printf '%s' "$answer" ;;
esac
exit "$code"
