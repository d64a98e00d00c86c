//! Secret settings and their files.

#[path = "../../../examples/support/secret_setting.rs"]
mod secret_setting;

use std::fs;
use std::path::Path;

use secret_setting::{secret, unquoted};

fn read(value: Option<&str>, file: Option<&Path>) -> Result<Option<String>, String> {
    let file = file.map(|path| path.display().to_string());
    secret("ADMIN_TOKEN", value.map(str::to_owned), file)
}

#[test]
fn a_secret_is_trimmed_wherever_it_stands() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    fs::write(&path, " correct horse battery staple\r\n\n").unwrap();
    let expected = Ok(Some("correct horse battery staple".to_owned()));
    assert_eq!(read(None, Some(&path)), expected);
    assert_eq!(read(Some("correct horse battery staple\n"), None), expected);
    assert_eq!(read(None, None), Ok(None));
}

#[test]
fn errors_name_the_setting_and_the_file_and_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path
    };
    let blank = file("blank", b" \n");
    let quoted = file("quoted", b"'hunter2'\n");
    let binary = file("binary", b"\xff\xfehunter2");
    let long = file("long", &[b'h'; 65 * 1024]);
    let missing = folder.path().join("missing");
    for (path, why) in [
        (&blank, "empty"),
        (&quoted, "quotation mark"),
        (&binary, "UTF-8"),
        (&long, "longer than 65536 octets"),
        (&missing, "No such file"),
        (&folder.path().to_owned(), "directory"),
        (&Path::new("/dev/zero").to_owned(), "longer"),
    ] {
        let error = read(None, Some(path)).unwrap_err();
        let named = format!("ADMIN_TOKEN_FILE={}: ", path.display());
        assert!(error.starts_with(&named) && error.contains(why), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
    for value in ["", " ", "\n", "\"hunter2\"", "'hunter2'\n"] {
        let error = read(Some(value), None).unwrap_err();
        assert!(error.starts_with("ADMIN_TOKEN: "), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
    let both = read(Some("hunter2"), Some(&blank)).unwrap_err();
    assert_eq!(
        both,
        "ADMIN_TOKEN and ADMIN_TOKEN_FILE are both set: set one of them"
    );
}

#[test]
fn quotes_inside_are_part_of_a_setting() {
    for text in ["a\"b", "\"a", "a'", "\"", "'a\""] {
        assert_eq!(unquoted(text), Ok(text));
    }
}
