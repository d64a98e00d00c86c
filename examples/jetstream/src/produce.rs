//! Accepting a broadcast.

use tower_web_push::Notification;
use tower_web_push::broadcast::{Audience, BroadcastId, Principal};
use tower_web_push::clock::{Clock as _, SystemClock};
use tower_web_push::message::Message;

use crate::Error;
use crate::flags::{Places, Produce};
use crate::job::Job;
use crate::store;
use crate::streams::Streams;

/// Writes one job for each page of live subscriptions.
///
/// After an interruption the first pages are accepted and the last ones are not. A repeated call with the same id
/// walks again, and does not add jobs that are in the stream.
pub(crate) async fn produce(places: &Places, flags: Produce) -> Result<(), Error> {
    let store = store::open(&places.store_url).await?;
    let streams = Streams::open(&places.nats_url).await?;
    let clock = SystemClock::new();
    let audience = match (&flags.user, &flags.tag) {
        (Some(user), _) => Audience::user(user.as_str()),
        (None, Some(tag)) => Audience::Tag(tag.clone()),
        (None, None) => Audience::All,
    };
    let due_at = clock.now();
    let broadcast = flags.id.unwrap_or_else(BroadcastId::random);
    let mut job = Job {
        broadcast,
        message: message(&flags, broadcast)?,
        due_at,
        not_before: due_at,
        attempts: 0,
        recipients: Vec::new(),
        only_for: flags.user.as_deref().map(Principal::from),
    };
    println!("broadcast {}", job.broadcast);

    let (mut after, mut jobs, mut recipients) = (None, 0, 0);
    loop {
        let page = store
            .page(&audience, after.as_ref(), Job::PAGE, clock.now())
            .await?;
        let (Some(first), Some(last)) = (page.first(), page.last()) else {
            break;
        };
        // The same page has the same name again. A page whose first or last row has changed is another one, and some
        // of its recipients get the message twice. None is left out.
        let name = format!("{}-{}-{}", job.broadcast, first.id, last.id);
        after = Some(last.subscription.endpoint().key());
        job.recipients = page.iter().map(|record| record.id).collect();
        streams.publish(&job, Some(&name)).await?;
        jobs += 1;
        recipients += page.len();
    }
    println!("{recipients} recipients in {jobs} jobs");
    Ok(())
}

/// The same message in each call with the same id: some recipients get it from both, and the tag hides the second
/// copy.
fn message(flags: &Produce, broadcast: BroadcastId) -> Result<Message, Error> {
    let mut notification = Notification::new(flags.title.as_str()).tag(broadcast.to_string());
    if let Some(body) = &flags.body {
        notification = notification.body(body.as_str());
    }
    if let Some(url) = &flags.url {
        notification = notification.url(url.as_str());
    }
    let message = Message::from(notification).with_ttl(flags.ttl);
    if message.is_too_large() {
        return Err("the notification is larger than push services take".into());
    }
    Ok(message)
}

#[cfg(test)]
mod tests {
    use tower_web_push::message::Ttl;

    use super::*;

    #[test]
    fn a_call_that_is_repeated_says_the_same() {
        let flags = Produce {
            title: "hello".to_owned(),
            body: None,
            url: Some("https://shop.example/orders/7".to_owned()),
            ttl: Ttl::DEFAULT,
            user: None,
            tag: None,
            id: None,
        };
        let id = BroadcastId::random();
        let first = message(&flags, id).unwrap();
        assert_eq!(message(&flags, id).unwrap(), first);
        let other = message(&flags, BroadcastId::random()).unwrap();
        assert_ne!(other, first);
    }
}
