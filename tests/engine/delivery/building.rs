//! Configurations that are refused.

use super::world::*;

#[tokio::test]
async fn a_lease_that_a_request_could_outlast_is_refused() {
    let built = WebPush::builder("mailto:ops@example.com")
        .request_timeout(Duration::from_secs(15))
        .lease(Duration::from_secs(15))
        .build()
        .await;
    let kind = tower_web_push::BuildErrorKind::LeaseTooShort;
    assert_eq!(built.unwrap_err().kind(), kind);
}

#[tokio::test]
async fn a_contact_that_no_push_service_takes_is_refused() {
    for contact in [
        "",
        "ops@example.com",
        "mailto:ops@localhost",
        "http://example.com",
    ] {
        let built = WebPush::builder(contact).build().await;
        let kind = tower_web_push::BuildErrorKind::InvalidContact;
        assert_eq!(built.unwrap_err().kind(), kind, "{contact}");
    }
}
