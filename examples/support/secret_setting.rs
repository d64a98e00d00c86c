//! Settings that hold a secret: as a value, or as the name of a file (`*_FILE`) with the value.

use std::fs::File;
use std::io::Read as _;

/// The longest file that is read, in octets. A PEM file is a tenth of it.
const LONGEST: u64 = 64 * 1024;

/// Reads a secret setting, without leading and trailing whitespace, which editors and tools add.
///
/// `name` is the name of the setting, for errors. Returns `None` if neither is set.
///
/// # Errors
///
/// Returns an error if both are set; if a file cannot be read; if a value is blank, which usually means that a
/// deployment's secret is missing; or if it is quoted, since a shell removes quotes but an environment file may not. No
/// error contains a value.
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

/// The text of a setting, which must not be quoted: the quotes would be part of it.
///
/// # Errors
///
/// Returns an error if it starts and ends with the same quotation mark.
pub(crate) fn unquoted(text: &str) -> Result<&str, String> {
    let in_quotes = ['"', '\'', '`']
        .iter()
        .any(|quote| text.len() > 1 && text.starts_with(*quote) && text.ends_with(*quote));
    if in_quotes {
        return Err("it starts and ends with a quotation mark; remove both".to_owned());
    }
    Ok(text)
}
