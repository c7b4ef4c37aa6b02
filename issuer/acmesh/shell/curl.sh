#!/bin/sh
# Stands before curl for acme.sh, which puts what a CA answers into shell text, file names and files that it runs again.
# acme.sh gets it in a harmless form only:
# - a body is one line without backslash, ', `, $ and control character, or certificates in PEM;
# - of the headers, those that acme.sh reads are written anew from what they may hold;
# - the token of a challenge is base64url (RFC 8555 §8.3), and each URL is a plain one of the CA itself, when it is read and
#   again when it is asked.
# Else the order ends. What DNS hooks ask of their providers passes unchanged.
#
# acme.sh asks a CA a dozen times for a certificate, so that this script starts nothing but curl.
# shellcheck disable=SC2086 # splitting is what this is about
# shellcheck disable=SC1003,SC2141 # a backslash is meant
# shellcheck disable=SC3045 # dash, bash, busybox and the BSDs know ulimit -S
ca="" head="" headers="" word=""
for next in "$@"; do
  case "$word" in
  --dump-header) headers="$next" ;;
  esac
  case "$next" in
  "Content-Type: application/jose+json" | "$CERTFERRY_CA"*) ca=1 ;;
  -I) head=1 ;;
  esac
  word="$next"
done
[ "$ca" ] || exec "$CERTFERRY_CURL" "$@"

set -f
LC_ALL=C
tab='	'
nl='
'

# refuse ends the order: the hub reads why.
refuse() {
  printf '%s\n' "$1" >"$CERTFERRY_RUN/ca.bad"
  [ -z "$CERTFERRY_MAIN" ] || kill -TERM "$CERTFERRY_MAIN"
  exit 8 # weird server reply
}

# url refuses what is no plain URL of the CA.
url() {
  case "$1" in
  *[!A-Za-z0-9._~/%=?\&+:@-]*) refuse address ;;
  "$CERTFERRY_CA"*) [ "${#1}" -le 1000 ] || refuse address ;;
  *) refuse address ;;
  esac
}

url "$word"
# What acme.sh knows of an earlier answer is not to be taken for this one's.
[ -z "$headers" ] || : >"$headers"
raw="$CERTFERRY_RUN/ca.headers"
: >"$raw"
ulimit -S -v 65536 2>/dev/null # an answer without end ends this script
# Behind the answer stand a full stop, curl's exit code and a carriage return, so that line feeds at its end stay. The shell
# leaves NULs out.
answer=$(
  ulimit -S -v 1048576 2>/dev/null
  "$CERTFERRY_CURL" "$@" --dump-header "$raw" --max-redirs 0 --max-filesize 1048576 --max-time 120 2>/dev/null
  printf '.%s\r' "$?"
)
cr="${answer##*[0-9]}"
answer="${answer%"$cr"}"
code="${answer##*.}"
answer="${answer%.*}"
[ "${#answer}" -le 1048576 ] || code=63 # larger than it may be
[ "$code" != 63 ] || exit 63

# The headers of the last answer: earlier ones are those of proxies and 1xx.
clean="" count=0 status=""
while IFS= read -r line; do
  count=$((count + 1))
  [ "$count" -le 500 ] || refuse header
  IFS=" $tab$cr"
  set -- ${line#*:}
  IFS=" "
  value="$*"
  case "$line" in
  HTTP/*)
    status="${line#* }"
    status="${status%%[ "$cr"]*}"
    case "$status" in
    [1-9][0-9][0-9]) clean="HTTP/1.1 $status$nl" ;;
    *) refuse header ;;
    esac
    ;;
  [Rr][Ee][Pp][Ll][Aa][Yy]-[Nn][Oo][Nn][Cc][Ee]:*)
    case "$value" in
    "") continue ;;
    *[!A-Za-z0-9._~=+/-]*) refuse header ;;
    esac
    clean="${clean}Replay-Nonce: $value$nl"
    ;;
  [Ll][Oo][Cc][Aa][Tt][Ii][Oo][Nn]:*)
    case "$status" in
    2*)
      url "$value"
      clean="${clean}Location: $value$nl"
      ;;
    esac
    ;;
  [Ll][Ii][Nn][Kk]:*rel=\"alternate\"*)
    value="${value#<}"
    value="${value%%>*}"
    url "$value"
    clean="${clean}Link: <$value>;rel=\"alternate\"$nl"
    ;;
  [Cc][Oo][Nn][Tt][Ee][Nn][Tt]-[Tt][Yy][Pp][Ee]:*[Aa]pplication/json*) clean="${clean}Content-Type: application/json$nl" ;;
  [Rr][Ee][Tt][Rr][Yy]-[Aa][Ff][Tt][Ee][Rr]:*)
    case "$value" in
    *[!A-Za-z0-9\ ,:]*) ;;
    *) clean="${clean}Retry-After: $value$nl" ;;
    esac
    ;;
  [Dd][Aa][Tt][Ee]:*)
    case "$value" in
    *[!A-Za-z0-9\ ,:]*) ;;
    *) clean="${clean}Date: $value$nl" ;;
    esac
    ;;
  esac
done <"$raw"
[ -z "$headers" ] || printf '%s' "$clean" >"$headers"
if [ "$head" ]; then
  printf '%s' "$clean"
  exit "$code"
fi

case "$answer" in
-----BEGIN\ *)
  case "$answer" in
  *[!A-Za-z0-9+/=\ "$cr$nl"-]*) ;; # more than certificates
  *)
    printf '%s' "$answer"
    exit "$code"
    ;;
  esac
  ;;
esac

# One line. What the shell splits at is left out, and a full stop keeps an empty part at the end.
IFS="$nl$cr$tab"
set -- $answer
IFS=" "
text="$*"
case "$text" in
*[[:cntrl:]]*) refuse control ;;
esac
case "$text" in
*\\*)
  # What a backslash begins in JSON becomes a space, but \/, which is a slash.
  IFS='\'
  set -- $text.
  [ "$#" -le 10000 ] || refuse control
  text=$(
    printf '%s' "$1"
    shift
    plain=""
    for part in "$@"; do
      case "$plain$part" in
      "")
        printf ' '
        plain="\\" # of two backslashes; what follows is plain
        continue
        ;;
      \\*) printf '%s' "$part" ;;
      /*) printf '%s' "$part" ;;
      u[0-9A-Fa-f][0-9A-Fa-f][0-9A-Fa-f][0-9A-Fa-f]*) printf ' %s' "${part#?????}" ;;
      *) printf ' %s' "${part#?}" ;;
      esac
      plain=""
    done
  )
  text="${text%.}"
  ;;
esac
case "$text" in
*[\'\`\$]*)
  IFS="'\`\$"
  set -- $text.
  IFS=" "
  text="$*"
  text="${text%.}"
  ;;
esac

# Split at quotes: a name, a colon, and the value, as acme.sh finds them.
IFS='"'
set -- $text.
name="" at="" seen=" "
for part in "$@"; do
  case "$at" in
  name)
    case "$part" in
    *[!\ :\[]* | *:*:* | *\[*\[*) at="" ;;
    *:*\[*) at=list ;;
    *\[*) at="" ;;
    *:*) at=value ;;
    *) at="" ;;
    esac
    ;;
  value)
    at=""
    case "$name" in
    token)
      case "$part" in
      "" | *[!A-Za-z0-9_-]*) refuse token ;;
      esac
      [ "${#part}" -le 200 ] || refuse token
      ;;
    *)
      [ -z "$part" ] || url "$part"
      case "$seen" in
      *" $name "*) [ "$name" = url ] || refuse address ;; # acme.sh would take both, with a line feed between them
      esac
      seen="$seen$name "
      ;;
    esac
    ;;
  list)
    case "$part" in
    *\]*) at="" ;;
    *[!\ ,]*) url "$part" ;;
    esac
    ;;
  esac
  case "$part" in
  token | url | authorizations | finalize | certificate) name="$part" at=name ;;
  *newNonce) name=newNonce at=name ;; # acme.sh does not look at how these names begin
  *newAccount) name=newAccount at=name ;;
  *newOrder) name=newOrder at=name ;;
  *newAuthz) name=newAuthz at=name ;;
  *revokeCert) name=revokeCert at=name ;;
  *keyChange) name=keyChange at=name ;;
  *renewalInfo) name=renewalInfo at=name ;;
  esac
done
printf '%s' "$text"
exit "$code"
