//! Settings that hold a secret: given themselves, or as the name of a file (`*_FILE`) that holds them.

use std::fs::File;
use std::io::Read as _;

/// The longest file that is read, in octets. A PEM file is a tenth of it.
const LONGEST: u64 = 64 * 1024;

/// Reads a secret setting: without the blanks and line breaks around it, which editors and tools leave at the end.
///
/// `name` is the setting's, for the error. `None`: neither is set.
///
/// # Errors
///
/// Both are set; a file cannot be read; a value is blank, as it is where a deployment's own secret is missing: then
/// what it protects would be left open; or it stands in quotes, which a shell would have removed and an environment
/// file may not. No error repeats a value.
pub(crate) fn secret(
    name: &str,
    value: Option<String>,
    file: Option<String>,
) -> Result<Option<String>, String> {
    match (value, file) {
        (Some(_), Some(_)) => Err(format!(
            "{name} and {name}_FILE are both set: set one of them"
        )),
        (Some(value), None) => checked(&value)
            .map(Some)
            .map_err(|why| format!("{name}: {why}")),
        (None, Some(path)) => {
            let path = path.trim();
            read(path)
                .and_then(|text| checked(&text))
                .map(Some)
                .map_err(|why| format!("{name}_FILE={path}: {why}"))
        }
        (None, None) => Ok(None),
    }
}

fn checked(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("empty; unset it, or set it to a value".to_owned());
    }
    unquoted(text).map(str::to_owned)
}

fn read(path: &str) -> Result<String, String> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(LONGEST + 1).read_to_string(&mut text))
        .map_err(|error| error.to_string())?;
    if text.len() as u64 > LONGEST {
        return Err(format!("longer than {LONGEST} octets"));
    }
    Ok(text)
}

/// A setting's text, unless it stands in quotes: they would be part of it.
///
/// # Errors
///
/// It starts and ends with the same quotation mark.
pub(crate) fn unquoted(text: &str) -> Result<&str, String> {
    let in_quotes = ['"', '\'', '`']
        .iter()
        .any(|quote| text.len() > 1 && text.starts_with(*quote) && text.ends_with(*quote));
    if in_quotes {
        return Err("it starts and ends with a quotation mark; remove both".to_owned());
    }
    Ok(text)
}
