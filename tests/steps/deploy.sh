# The files of deploy/: each is read by the program that it is for, if that can be installed, and by a parser otherwise.

step_deploy() {
    local folder
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' RETURN
    deploy_settings
    deploy_systemd "$folder"
    deploy_nginx "$folder"
    deploy_caddy
}

# The names of settings and routes in them exist, and what has to be equal is.
deploy_settings() {
    local python="$peers/venv/bin/python"
    [ -x "$python" ] || { leave_out "python of $peers/venv is missing: ./test --install"; return 0; }
    "$python" tests/steps/deploy.py
}

deploy_systemd() {
    have systemd-analyze || { leave_out "systemd-analyze is missing"; return 0; }
    # The program is not installed here.
    sed 's#^ExecStart=/usr/local/bin/#ExecStart=/bin/true #' deploy/systemd/web-push.service >"$1/web-push.service"
    cp deploy/systemd/web-push.socket "$1"
    # It exits with 0 after warnings, too.
    local said unit
    for unit in web-push.service web-push.socket; do
        said=$(systemd-analyze verify --man=no "$1/$unit" 2>&1) || { echo "$said" && return 1; }
        if grep -F "$unit" <<<"$said"; then return 1; fi
    done
    echo "systemd: valid"
    # From 0, closed off, to 10.
    systemd-analyze security --offline=true --threshold=20 --no-pager "$1/web-push.service" | tail -n 1
}

deploy_nginx() {
    have nginx || { leave_out "nginx is missing"; return 0; }
    openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=push.example.com \
        -keyout "$1/key.pem" -out "$1/certificate.pem" 2>/dev/null
    sed -e "s#/etc/ssl/push.example.com.pem#$1/certificate.pem#" -e "s#/etc/ssl/private/push.example.com.key#$1/key.pem#" \
        deploy/proxies/nginx.conf >"$1/site.conf"
    echo "pid $1/nginx.pid; events {} http { access_log off; include $1/site.conf; }" >"$1/nginx.conf"
    nginx -t -q -p "$1" -c "$1/nginx.conf" -e "$1/error.log"
    echo "nginx: valid"
}

deploy_caddy() {
    have caddy || { leave_out "caddy is missing"; return 0; }
    caddy validate --adapter caddyfile --config deploy/proxies/Caddyfile >/dev/null 2>&1 ||
        caddy validate --adapter caddyfile --config deploy/proxies/Caddyfile
    echo "Caddy: valid"
}
