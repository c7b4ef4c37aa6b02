#!/usr/bin/env sh
# The DNS hook that Certferry gives to acme.sh. It stands in front of the real hook of each name: what is to be removed
# later is written down before it is added, credentials are kept from acme.sh's files, and where a record cannot be added
# acme.sh is stopped before it posts a challenge, which would cost every name of the order one of its tries at the CA.
# shellcheck disable=SC2034,SC2154,SC1090
dns_certferry_info='Certferry'

dns_certferry_add() {
  _certferry_load "$1" || _certferry_stop "$1"
  printf '%s %s\n' "$1" "$2" >>"$CERTFERRY_RUN/dns.added" || _certferry_stop "$1"
  "${_certferry_hook}_add" "$1" "$2" || _certferry_stop "$1"
  printf '%s %s\n' "$1" "$2" >>"$CERTFERRY_RUN/dns.done"
  [ "$1" = "$CERTFERRY_LAST" ] || return 0
  # All records stand: the hub looks whether the world sees them.
  _certferry_left="$CERTFERRY_WAIT"
  until [ -e "$CERTFERRY_RUN/dns.seen" ] || [ "$_certferry_left" -le 0 ]; do
    sleep 1
    _certferry_left=$((_certferry_left - 1))
  done
}

dns_certferry_rm() {
  _certferry_load "$1" || return 1
  "${_certferry_hook}_rm" "$1" "$2" || return 1
  printf '%s %s\n' "$1" "$2" >>"$CERTFERRY_RUN/dns.removed"
}

# _certferry_load finds and reads the hook of a record.
_certferry_load() {
  _certferry_found=""
  while read -r _certferry_name _certferry_hook _certferry_file; do
    if [ "$_certferry_name" = "$1" ]; then
      _certferry_found=1
      break
    fi
  done <"$CERTFERRY_RUN/dns.map"
  if [ -z "$_certferry_found" ]; then
    _err "no hook is known for this record"
    return 1
  fi
  . "$_certferry_file" || return 1
  # What hooks keep of a certificate, such as the ids of records, stands in one file for the order, the test and what clears
  # up after a crash. acme.sh reads it as shell text, so that a value with a quote is not kept.
  DOMAIN_CONF="$CERTFERRY_RUN/dns.conf"
  _saveaccountconf() { :; }
  _saveaccountconf_mutable() { :; }
  _savedomainconf() {
    case " $CERTFERRY_VARIABLES " in
    *" $1 "*) return 0 ;; # a credential
    esac
    case "$3:$2" in
    :*"'"*) return 1 ;;
    esac
    _save_conf "$DOMAIN_CONF" "$@"
  }
}

# _certferry_stop ends acme.sh. The hub removes what was added.
_certferry_stop() {
  printf '%s\n' "$1" >"$CERTFERRY_RUN/dns.fail"
  kill -TERM $$
  exit 1
}
