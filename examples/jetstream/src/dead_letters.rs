//! Dead letters: jobs that failed repeatedly, to list or to put back.

use async_nats::jetstream::stream::RawMessageErrorKind;

use crate::Error;
use crate::flags::{DeadLetters, Places};
use crate::job::Job;
use crate::streams::{DEAD_SUBJECT, REASON, Streams};

/// Lists them, or puts them back into the queue.
pub(crate) async fn dead_letters(places: &Places, flags: DeadLetters) -> Result<(), Error> {
    let streams = Streams::open(&places.nats_url).await?;
    let mut from = 1;
    loop {
        let next = streams
            .dead()
            .raw_message_builder()
            .sequence(from)
            .next_by_subject(DEAD_SUBJECT);
        let letter = match next.send().await {
            Ok(letter) => letter,
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let number = letter.sequence;
        from = number + 1;
        if !flags.numbers.is_empty() && !flags.numbers.contains(&number) {
            continue;
        }
        // Never print the job itself: it contains the message.
        let job = match Job::read(&letter.payload) {
            Ok(job) => format!(
                "{} recipients of broadcast {}",
                job.recipients.len(),
                job.broadcast
            ),
            Err(_) => format!("{} octets that are not a job", letter.payload.len()),
        };
        let reason = letter
            .headers
            .get(REASON)
            .map_or("", |reason| reason.as_str());
        println!("{number}\t{}\t{reason}\t{job}", letter.time);
        if flags.replay {
            streams.replay(number).await?;
            println!("{number}\tput back");
        }
    }
}
