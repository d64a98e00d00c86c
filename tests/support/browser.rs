//! Either browser, so that a case is written once.

use std::env;
use std::path::PathBuf;

use serde_json::Value;

use super::chromium::Chromium;
use super::firefox::Firefox;

/// The browsers' time zone: neither its hour nor its minute are UTC's, all year round, and all browsers use this
/// name.
pub(crate) const ZONE: &str = "Asia/Kabul";

/// A started browser.
pub(crate) enum Browser {
    Firefox(Box<Firefox>),
    Chromium(Box<Chromium>),
}

/// The display settings of a page.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Look {
    Light,
    Dark,
    Phone,
}

impl Look {
    pub(crate) const ALL: [Self; 3] = [Self::Light, Self::Dark, Self::Phone];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Light => "light",
            Self::Dark => "dark",
            Self::Phone => "phone",
        }
    }

    pub(crate) const fn scheme(self) -> &'static str {
        match self {
            Self::Light | Self::Phone => "light",
            Self::Dark => "dark",
        }
    }

    /// In CSS pixels.
    pub(crate) const fn size(self) -> (u32, u32) {
        match self {
            Self::Light | Self::Dark => (1200, 760),
            Self::Phone => (390, 844),
        }
    }
}

impl Browser {
    /// Opens an address in the tab and waits until it has loaded.
    pub(crate) async fn open(&mut self, url: &str) {
        match self {
            Self::Firefox(firefox) => firefox.open(url).await,
            Self::Chromium(chromium) => chromium.open(url).await,
        }
    }

    /// Returns the value of an expression in the page, or of its promise.
    pub(crate) async fn evaluate(&mut self, expression: &str) -> Value {
        let expression = as_json(expression);
        value(match self {
            Self::Firefox(firefox) => firefox.evaluate(&expression).await,
            Self::Chromium(chromium) => chromium.evaluate(&expression).await,
        })
    }

    /// Waits in the page until an expression is true, and returns its value. The page may load again meanwhile.
    pub(crate) async fn wait_for(&mut self, expression: &str) -> Value {
        let expression = as_json(&format!(
            "new Promise((resolve, reject) => {{
                const check = async () => {{
                    const value = await ({expression});
                    if (value) resolve(value); else setTimeout(() => check().catch(reject), 50);
                }};
                check().catch(reject);
            }})"
        ));
        value(match self {
            Self::Firefox(firefox) => firefox.evaluate(&expression).await,
            Self::Chromium(chromium) => chromium.evaluate_in_any_page(&expression).await,
        })
    }

    /// Sets the display settings. Firefox changes the colours only.
    pub(crate) async fn set_look(&mut self, look: Look) {
        match self {
            Self::Firefox(firefox) => firefox.set_look(look).await,
            Self::Chromium(chromium) => chromium.set_look(look).await,
        }
    }

    /// Returns the visible part of the page as PNG.
    pub(crate) async fn screenshot(&mut self) -> Vec<u8> {
        match self {
            Self::Firefox(firefox) => firefox.screenshot().await,
            Self::Chromium(chromium) => chromium.screenshot().await,
        }
    }

    /// Returns the addresses of all tabs.
    pub(crate) async fn tabs(&mut self) -> Vec<String> {
        match self {
            Self::Firefox(firefox) => firefox.tabs().await,
            Self::Chromium(chromium) => chromium.tabs().await,
        }
    }

    /// Closes all tabs except the first, which comes to the front.
    pub(crate) async fn close_other_tabs(&mut self) {
        match self {
            Self::Firefox(firefox) => firefox.close_other_tabs().await,
            Self::Chromium(chromium) => chromium.close_other_tabs().await,
        }
    }

    /// Clicks on a notification that the browser gave to the desktop, or on one of its buttons. Returns its text.
    pub(crate) async fn click_notification(&mut self, title: &str, button: Option<&str>) -> String {
        match self {
            Self::Firefox(firefox) => firefox.click_notification(title, button).await,
            Self::Chromium(chromium) => chromium.click_notification(title, button).await,
        }
    }

    /// Stops it cleanly.
    pub(crate) async fn close(self) {
        match self {
            Self::Firefox(firefox) => firefox.close().await,
            Self::Chromium(chromium) => chromium.close().await,
        }
    }
}

/// Returns a program: the value of a variable, or the first of its names on the `PATH`.
pub(crate) fn found(variable: &str, names: &[&str]) -> Option<PathBuf> {
    if let Some(path) = env::var_os(variable) {
        return Some(path.into());
    }
    let folders: Vec<PathBuf> = env::split_paths(&env::var_os("PATH")?).collect();
    names
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)))
        .find(|path| path.is_file())
}

/// An expression whose value is that of another one, or of its promise, as JSON.
fn as_json(expression: &str) -> String {
    format!("(async () => JSON.stringify(await ({expression})))()")
}

fn value(json: Option<String>) -> Value {
    json.map_or(Value::Null, |json| serde_json::from_str(&json).unwrap())
}
