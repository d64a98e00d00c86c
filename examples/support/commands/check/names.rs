//! The endpoint policy, and the names of the hosts that it allows.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tower_web_push::deliver::EndpointPolicy;
use tower_web_push::store::SubscriptionRecord;
use tower_web_push::subscription::Endpoint;

use super::Findings;

/// The longest wait for a name server or a push service.
const PATIENCE: Duration = Duration::from_secs(10);

/// Hosts of the browsers' push services, with endpoints as they make them.
const PUSH_SERVICES: [(&str, &str); 4] = [
    ("Chrome", "https://fcm.googleapis.com/fcm/send/x"),
    (
        "Firefox",
        "https://updates.push.services.mozilla.com/wpush/v2/x",
    ),
    ("Safari", "https://web.push.apple.com/x"),
    ("Edge", "https://wns2-by3p.notify.windows.com/w/?token=x"),
];

/// Says which browsers' push services the policy refuses.
pub(super) fn check_policy(policy: &EndpointPolicy, findings: &mut Findings) {
    if policy.allows_local() {
        findings.note("policy: ENDPOINT_POLICY=local is for tests only");
        return;
    }
    let mut refused = Vec::new();
    for (browser, endpoint) in PUSH_SERVICES {
        let is_allowed = Endpoint::parse(endpoint).is_ok_and(|it| policy.check(&it).is_ok());
        if !is_allowed {
            refused.push(browser);
        }
    }
    match refused.len() {
        0 => findings.ok("policy: the push services of all browsers are allowed"),
        4 => findings.note(
            "policy: ENDPOINT_POLICY allows no browser's push service, only hosts of its list",
        ),
        _ => findings.note(format!(
            "policy: ENDPOINT_POLICY refuses the push service of {}",
            refused.join(", ")
        )),
    }
}

/// Looks up the hosts that the policy allows: those of the browsers, and those of its list.
pub(super) async fn check_names(policy: &EndpointPolicy, findings: &mut Findings) {
    if policy.allows_local() {
        return;
    }
    let of_browsers = PUSH_SERVICES
        .iter()
        .map(|(browser, endpoint)| (*browser, (*endpoint).to_owned()));
    let listed = policy.named_origins();
    let listed = listed.map(|origin| ("ENDPOINT_POLICY", format!("{}/x", origin.as_str())));
    let mut checked = Vec::new();
    for (whose, endpoint) in of_browsers.chain(listed) {
        let Ok(endpoint) = Endpoint::parse(&endpoint) else {
            continue;
        };
        let host = host_and_port(&endpoint);
        if policy.check(&endpoint).is_err() || checked.contains(&host) {
            continue;
        }
        match resolve(&host).await {
            Ok(_) => findings.ok(format!("names: {host} ({whose})")),
            Err(why) => findings.wrong(
                format!("names: {host} ({whose}): {why}"),
                "Does this machine reach a name server, and may it reach the Internet?",
            ),
        }
        checked.push(host);
    }
}

fn host_and_port(endpoint: &Endpoint) -> String {
    let origin = endpoint.origin();
    let origin = origin.as_str();
    let (scheme, host) = origin.split_once("://").unwrap_or(("https", origin));
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| {
        !port.is_empty() && port.bytes().all(|digit| digit.is_ascii_digit())
    });
    match (has_port, scheme) {
        (true, _) => host.to_owned(),
        (false, "http") => format!("{host}:80"),
        (false, _) => format!("{host}:443"),
    }
}

async fn resolve(host: &str) -> Result<Vec<SocketAddr>, String> {
    match timeout(PATIENCE, lookup_host(host)).await {
        Ok(Ok(found)) => {
            let found: Vec<_> = found.collect();
            match found.is_empty() {
                true => Err("it has no address".to_owned()),
                false => Ok(found),
            }
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer within 10 seconds".to_owned()),
    }
}

/// Connects to the host of the endpoint, without a request.
pub(super) async fn check_host(row: &SubscriptionRecord, findings: &mut Findings) {
    let host = host_and_port(row.subscription.endpoint());
    let addresses = match resolve(&host).await {
        Ok(addresses) => addresses,
        Err(why) => {
            findings.wrong(
                format!("{host}: {why}"),
                "Nothing can be sent there from this machine.",
            );
            return;
        }
    };
    match timeout(PATIENCE, TcpStream::connect(&*addresses)).await {
        Ok(Ok(_)) => findings.ok(format!("{host}: it can be reached")),
        Ok(Err(error)) => findings.wrong(
            format!("{host}: {error}"),
            "Is there a firewall that lets nothing out?",
        ),
        Err(_) => findings.wrong(
            format!("{host}: no connection within 10 seconds"),
            "Is there a firewall that lets nothing out?",
        ),
    }
}
