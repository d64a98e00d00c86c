//! The other programs.

use std::fs;
use std::process::Output;

use tower_web_push::testing::TestPushService;
use tower_web_push::vapid::VapidKey;

use super::world::{World, next};
use crate::support::server_process::{command, example, finish};

fn printed(output: &Output) -> &str {
    str::from_utf8(&output.stdout).unwrap()
}

#[test]
fn every_example_is_built() {
    for name in [
        "axum_server",
        "custom_store",
        "existing_app",
        "hyper_server",
        "quickstart",
        "send",
        "vapid_keys",
    ] {
        example(name);
    }
}

#[tokio::test]
async fn quickstart_prints_what_the_browser_decrypted() {
    let output = finish(command("quickstart", &[])).await;
    assert!(output.status.success(), "{output:?}");
    let text = printed(&output);
    assert!(
        text.contains("Shipped") && text.contains("Order 7 is on its way"),
        "{text}"
    );
    let source = include_str!("../../../examples/quickstart.rs");
    assert!(source.lines().count() < 60, "a showpiece fits on a page");
}

#[tokio::test]
async fn custom_store_sends_to_a_row_of_its_own_table() {
    let output = finish(command("custom_store", &[])).await;
    assert!(output.status.success(), "{output:?}");
    assert!(printed(&output).starts_with("1 accepted\n"), "{output:?}");
}

#[tokio::test]
async fn vapid_keys_makes_keys_and_reads_its_own_forms() {
    let output = finish(command("vapid_keys", &[])).await;
    assert!(output.status.success(), "{output:?}");
    let made = printed(&output);
    let lines: Vec<_> = made.lines().collect();
    let (public, private) = (lines[1], lines[4]);
    assert_eq!((public.len(), private.len()), (87, 43), "{made}");
    let pem = &made[made.find("-----BEGIN").unwrap()..];

    let folder = tempfile::tempdir().unwrap();
    for form in [private, pem] {
        let file = folder.path().join("key");
        fs::write(&file, form).unwrap();
        let mut from_file = command("vapid_keys", &[]);
        from_file.arg(&file);
        assert_eq!(printed(&finish(from_file).await), made);
        let mut from_input = command("vapid_keys", &[]);
        from_input.arg("-").stdin(fs::File::open(&file).unwrap());
        assert_eq!(printed(&finish(from_input).await), made);
    }
    let file = folder.path().join("key");
    // All octets are used, also those that are blanks in a text: one raw key in 20 begins or ends with one.
    let raw = [b"\n".as_slice(), &[7; 30], b" "].concat();
    let key = VapidKey::from_secret_bytes(&raw).unwrap();
    fs::write(&file, &raw).unwrap();
    let mut from_file = command("vapid_keys", &[]);
    from_file.arg(&file);
    let output = finish(from_file).await;
    let private = key.secret_to_raw_base64url();
    assert!(printed(&output).contains(private.as_str()), "{output:?}");
    for (wrong, said) in [
        ("no key", "the private key is damaged, or in no known form"),
        (public, "this is a public key"),
    ] {
        fs::write(&file, wrong).unwrap();
        let mut from_file = command("vapid_keys", &[]);
        from_file.arg(&file);
        let output = finish(from_file).await;
        assert_eq!(output.status.code(), Some(1));
        assert_said(&output, &format!("error: {}: {said}", file.display()));
    }
}

/// A message for users begins like this, and contains no `Debug` output of Rust.
#[track_caller]
fn assert_said(output: &Output, beginning: &str) {
    let errors = str::from_utf8(&output.stderr).unwrap();
    assert!(errors.starts_with(beginning), "{errors}");
    let debug = ["{", "Some(", "Err(", "kind:", "Error(", "Os ", "\\"];
    assert!(!debug.iter().any(|sign| errors.contains(sign)), "{errors}");
    assert!(output.stdout.is_empty(), "{output:?}");
}

#[tokio::test]
async fn send_reports_wrong_arguments_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let key = VapidKey::generate().unwrap();
    let browser = TestPushService::new().user_agent();
    let subscription = browser.subscribe(key.public_key()).unwrap();
    let key = file("key", &key.secret_to_raw_base64url());
    let subscription = file("sub.json", &serde_json::to_string(&subscription).unwrap());
    let (none, missing) = (file("none", "{}"), folder.path().join("missing"));
    let missing = missing.display().to_string();
    let good = "mailto:ops@example.com";
    let of = |file: &str| format!("error: {file}: ");
    for (key, contact, urgency, subscription, said) in [
        (&missing, good, "normal", &subscription, &of(&missing)),
        (&none, good, "normal", &subscription, &of(&none)),
        (&key, good, "normal", &missing, &of(&missing)),
        (&key, good, "normal", &none, &of(&none)),
        (
            &key,
            "ops",
            "normal",
            &subscription,
            &"error: --contact: ".to_owned(),
        ),
        (
            &key,
            good,
            "urgent",
            &subscription,
            &"error: --urgency: ".to_owned(),
        ),
    ] {
        let mut command = command("send", &[]);
        command
            .args(["--key", key, "--contact", contact, "--urgency", urgency])
            .args([subscription, "Hello"]);
        let output = finish(command).await;
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert_said(&output, said);
        assert_eq!(
            output
                .stderr
                .iter()
                .filter(|octet| **octet == b'\n')
                .count(),
            1
        );
    }
}

#[tokio::test]
async fn send_reports_its_result_in_words() {
    let world = World::new().await;
    let browser = world.push_service.user_agent();
    let key = VapidKey::generate().unwrap();
    let subscription = browser.subscribe(key.public_key()).unwrap();
    let folder = world.folder.path();
    fs::write(folder.join("key"), key.secret_to_raw_base64url().as_str()).unwrap();
    let json = serde_json::to_string(&subscription).unwrap();
    fs::write(folder.join("subscription.json"), json).unwrap();
    let send = |key: &str| {
        let mut command = command("send", &[]);
        command
            .arg("--key")
            .arg(folder.join(key))
            .args(["--contact", "mailto:ops@example.com", "--ttl", "60"])
            .arg(folder.join("subscription.json"))
            .arg("Hello from the terminal");
        finish(command)
    };

    let output = send("key").await;
    assert!(output.status.success(), "{output:?}");
    assert!(
        printed(&output).contains("took the message with status 201"),
        "{output:?}"
    );
    assert_eq!(next(&browser).await.text(), Some("Hello from the terminal"));

    let other = VapidKey::generate().unwrap();
    fs::write(
        folder.join("other"),
        other.secret_to_raw_base64url().as_str(),
    )
    .unwrap();
    let output = send("other").await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_said(&output, "Not delivered: ");

    assert!(browser.unsubscribe());
    let output = send("key").await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("no longer exists"), "{text}");
}

#[tokio::test]
async fn import_treats_secret_settings_as_the_servers_do() {
    let settings = [("STORE_URL", "hunter2"), ("KEY_ENCRYPTION_KEY", "hunter2")];
    let mut help = command("import", &settings);
    help.arg("--help");
    let output = finish(help).await;
    assert!(output.status.success() && !printed(&output).contains("hunter2"));

    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key.pem");
    let pem = VapidKey::generate().unwrap().secret_to_pkcs8_pem();
    fs::write(&key, pem.as_str()).unwrap();
    let key = key.display().to_string();
    // Settings are checked before anything is opened: the source does not exist.
    let source = format!("sqlite://{}", folder.path().join("source.db").display());
    let to = folder.path().join("push.db").display().to_string();
    let to = format!("sqlite://{to}");
    for (settings, error) in [
        (
            [("STORE_URL", to.as_str()), ("KEY_ENCRYPTION_KEY", "")],
            "KEY_ENCRYPTION_KEY: empty",
        ),
        (
            [("STORE_URL", &to), ("STORE_URL_FILE", "/nowhere")],
            "STORE_URL and STORE_URL_FILE are both set",
        ),
        (
            [("ENDPOINT_POLICY", "known"), ("STORE_URL_FILE", "/nowhere")],
            "STORE_URL_FILE=/nowhere: ",
        ),
    ] {
        let mut import = command("import", &settings);
        import.args(["--from", &source, "--vapid-private-key", &key]);
        let output = finish(import).await;
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(error), "{text}");
        assert!(!folder.path().join("push.db").exists(), "{error}");
    }
}
