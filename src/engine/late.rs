//! Messages that a push service accepted late, for the log.

use std::time::Duration;

use crate::observe::{self, Lasting, ToldOfLasting};
use crate::push_service::PushService;

/// A message that is accepted this long after it was due is late: the bound of the alert `WebPushDeliverySlow`.
const LATE: Duration = Duration::from_secs(60);

/// The late messages of a process by push service.
#[derive(Debug, Default)]
pub(super) struct Late(Lasting<PushService>);

impl Late {
    /// Notes an accepted message. The log is told if it is late: of the first one of a push service, then once a minute.
    pub(super) fn note(&self, push_service: PushService, since_due: Duration) {
        if since_due >= LATE
            && let Some(told) = self.0.add(push_service, since_due)
        {
            tell(told);
        }
    }

    /// Tells of messages that came after the last line, once their minute is over.
    pub(super) fn tell_due(&self) {
        self.0.due().into_iter().for_each(tell);
    }
}

fn tell(((push_service, messages), latest): ToldOfLasting<PushService>) {
    let push_service = push_service.map_or("others", PushService::as_str);
    observe::event!(
        WARN,
        push_service,
        messages,
        latest = ?latest,
        "messages were accepted late"
    );
    let _ = (push_service, messages, latest);
}
