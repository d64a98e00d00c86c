//! A button of a notification.

use std::fmt;

/// A button of a notification.
///
/// Browsers show a limited number of them, usually two.
#[derive(Clone, PartialEq, Eq)]
pub struct Action {
    pub(super) action: String,
    pub(super) title: String,
    pub(super) navigate: Option<String>,
    pub(super) icon: Option<String>,
}

impl Action {
    /// A button with its name for the service worker, and its text.
    #[must_use]
    pub fn new(action: impl Into<String>, title: impl Into<String>) -> Self {
        Self {
            action: action.into(),
            title: title.into(),
            navigate: None,
            icon: None,
        }
    }

    /// The address that a click on it opens.
    ///
    /// Anything but an absolute http or https URL keeps the whole message from being declarative.
    #[must_use]
    pub fn navigate(mut self, url: impl Into<String>) -> Self {
        self.navigate = Some(url.into());
        self
    }

    /// The URL of an icon.
    #[must_use]
    pub fn icon(mut self, url: impl Into<String>) -> Self {
        self.icon = Some(url.into());
        self
    }
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Action").finish_non_exhaustive()
    }
}
