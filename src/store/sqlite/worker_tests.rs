//! Transactions in an application's file.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::connection;
use super::super::identity::Identity;
use super::super::log::beside;
use super::super::prefix::Prefix;
use super::super::query::{all, execute, first};
use super::*;
use crate::store::StoreErrorKind;

const MILLIS_20: Duration = Duration::from_millis(20);

fn prefix() -> Prefix {
    Prefix::parse("web_push_").unwrap()
}

#[tokio::test]
async fn an_applications_file_is_left_for_as_long_as_a_transaction_took() {
    let conn = connection::in_memory_with(prefix()).unwrap();
    let (jobs, queue) = mpsc::channel(QUEUE);
    let started = Instant::now();
    let writer = thread::spawn(move || write(&conn, queue, None, None));
    for _ in 0..5 {
        let job = |_: &Connection| {
            thread::sleep(MILLIS_20);
            Ok(())
        };
        ask(&jobs, job).await.unwrap();
    }
    drop(jobs);
    writer.join().unwrap();
    assert!(started.elapsed() >= 10 * MILLIS_20);
}

/// A file that has a log, and the store's connection to it.
fn shared_file() -> (tempfile::TempDir, std::path::PathBuf, Connection) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shop.db");
    let application = rusqlite::Connection::open(&path).unwrap();
    application
        .execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE orders (id INTEGER PRIMARY KEY)")
        .unwrap();
    let identity = Identity::of(&path).unwrap();
    let conn = connection::writer(&path, &prefix(), &identity).unwrap();
    (folder, path, conn)
}

#[tokio::test]
async fn a_transaction_in_an_applications_file_ends_after_five_milliseconds() {
    let (_folder, path, conn) = shared_file();
    let (jobs, queue) = mpsc::channel(QUEUE);
    let writer = thread::spawn(move || write(&conn, queue, None, None));
    let long = ask(&jobs, |conn| {
        execute(conn, "INSERT INTO worker (id) VALUES (1)", [])?;
        thread::sleep(MAX_BATCH_TIME_IF_SHARED);
        thread::sleep(MAX_BATCH_TIME_IF_SHARED);
        Ok(())
    });
    let next = ask(&jobs, move |_| {
        let other = rusqlite::Connection::open(&path).unwrap();
        let sql = "SELECT count(*) FROM web_push_worker";
        Ok(other
            .query_row(sql, [], |row| row.get::<_, u32>(0))
            .unwrap())
    });
    let (long, next) = tokio::join!(long, next);
    long.unwrap();
    assert_eq!(next.unwrap(), 1, "it is committed");
    drop(jobs);
    writer.join().unwrap();
}

/// The application had the file meanwhile, and need not have it again.
#[test]
fn the_wait_for_the_applications_transaction_is_no_part_of_ours() {
    let (_folder, path, conn) = shared_file();
    let begun = Barrier::new(2);
    thread::scope(|scope| {
        let application = scope.spawn(|| {
            let application = rusqlite::Connection::open(&path).unwrap();
            application.execute_batch("BEGIN IMMEDIATE").unwrap();
            begun.wait();
            thread::sleep(10 * MILLIS_20);
            let end = Instant::now();
            application.execute_batch("COMMIT").unwrap();
            end
        });
        begun.wait();
        let (job, _answered) = Task::new(|_: &Connection| Ok(()));
        let (_jobs, mut queue) = mpsc::channel(QUEUE);
        let took = transaction(&conn, job, &mut queue, None);
        let ended = Instant::now();
        let end = application.join().unwrap();
        assert!(took <= ended.duration_since(end), "{took:?}");
    });
}

/// A full disk may end a transaction, and a job may go on in spite of that.
#[test]
fn no_job_joins_a_transaction_that_sqlite_has_rolled_back() {
    let conn = connection::in_memory_with(prefix()).unwrap();
    let (jobs, queue) = mpsc::channel(QUEUE);
    let ask = |sql: &'static str| {
        let (job, answered) = Task::new(move |conn: &Connection| execute(conn, sql, []).map(drop));
        jobs.blocking_send(Command::Run(job)).unwrap();
        answered
    };
    let first = ask("ROLLBACK");
    let next = ask("INSERT INTO worker (id) VALUES (1)");
    drop(jobs);
    write(&conn, queue, None, None);
    let error = first.blocking_recv().unwrap().unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
    next.blocking_recv().unwrap().unwrap();
    let rows = all(&conn, "SELECT id FROM worker", [], |row| row.get::<i64>());
    assert_eq!(rows.unwrap(), [1]);
}

/// A job that joined the transaction was asked for after the file had gone, and would be lost with the process.
#[tokio::test]
async fn nothing_is_accepted_by_a_transaction_that_outlives_the_file() {
    let (_folder, path, conn) = shared_file();
    let identity = Identity::of(&path).unwrap();
    let (jobs, queue) = mpsc::channel(QUEUE);
    let writer = thread::spawn(move || write(&conn, queue, None, Some(&identity)));
    let deleting = ask(&jobs, move |_| {
        std::fs::remove_file(&path).unwrap();
        Ok(())
    });
    let joined = ask(&jobs, |conn| {
        execute(conn, "INSERT INTO worker (id) VALUES (1)", [])
    });
    let (deleting, joined) = tokio::join!(deleting, joined);
    let later = ask(&jobs, |_| Ok(())).await.unwrap_err();
    for error in [deleting.unwrap_err(), joined.map(drop).unwrap_err()] {
        assert_eq!(error.kind(), StoreErrorKind::Misconfigured, "{error:?}");
        assert_eq!(told(&error), told(&later), "one line of the log");
    }
    drop(jobs);
    writer.join().unwrap();
}

/// Whether it is the first of its transaction, which then ends, or a later one.
#[tokio::test]
async fn a_change_that_fails_takes_back_what_it_has_done_and_nothing_else() {
    for failing in 0..4_i64 {
        let (_folder, _path, conn) = shared_file();
        let (jobs, mut queue) = mpsc::channel(QUEUE);
        let changes = (0..4).map(|number| {
            ask(&jobs, move |conn| {
                execute(conn, "INSERT INTO worker (id) VALUES (?1)", [number])?;
                if number == failing {
                    return Err(StoreErrorKind::Full.into());
                }
                Ok(())
            })
        });
        let changes = futures_util::future::join_all(changes);
        let writer = thread::spawn(move || {
            // All of them are waiting before the first one runs.
            while queue.len() < 4 {
                thread::yield_now();
            }
            // Those behind one that fails still share a transaction.
            let mut transactions = 0;
            while let Ok(Command::Run(job)) = queue.try_recv() {
                transaction(&conn, job, &mut queue, None);
                transactions += 1;
            }
            assert_eq!(transactions, if failing == 0 { 2 } else { 1 });
            let ids = "SELECT id FROM worker ORDER BY id";
            all(&conn, ids, [], |columns| columns.get::<i64>()).unwrap()
        });
        for (number, changed) in (0..).zip(changes.await) {
            assert_eq!(changed.is_err(), number == failing, "{changed:?}");
        }
        let expected: Vec<_> = (0..4).filter(|number| *number != failing).collect();
        assert_eq!(writer.join().unwrap(), expected);
    }
}

/// One that only looks and refuses costs the others nothing. Of what a statement changed before it failed on damage SQLite counts
/// nothing.
#[test]
fn changes_run_again_only_if_one_has_failed_halfway() {
    use StoreErrorKind::{Corrupt, Full, Unavailable};
    let cases = [
        (false, Full, [1, 1, 1]),
        (true, Full, [2, 2, 1]),
        (false, Corrupt, [2, 2, 1]),
        (false, Unavailable, [2, 2, 1]),
    ];
    for (writes, kind, runs) in cases {
        let conn = connection::in_memory().unwrap();
        let ran: [Arc<AtomicUsize>; 3] = Default::default();
        let (jobs, queue) = mpsc::channel(QUEUE);
        // Their callers wait.
        let mut answers = Vec::new();
        for (number, ran) in (0_i64..).zip(&ran) {
            let ran = Arc::clone(ran);
            let (job, answer) = Task::new(move |conn: &Connection| {
                ran.fetch_add(1, Ordering::Relaxed);
                let fails = number == 1;
                if writes || !fails {
                    execute(conn, "INSERT INTO worker (id) VALUES (?1)", [number])?;
                }
                match fails {
                    true => Err(kind.into()),
                    false => Ok(()),
                }
            });
            jobs.blocking_send(Command::Run(job)).unwrap();
            answers.push(answer);
        }
        drop(jobs);
        write(&conn, queue, None, None);
        let ran = ran.map(|ran| ran.load(Ordering::Relaxed));
        assert_eq!(ran, runs, "{kind:?}");
        let ids = all(&conn, "SELECT id FROM worker", [], |row| row.get::<i64>());
        assert_eq!(ids.unwrap(), [0, 2]);
    }
}

#[test]
fn brief_reads_that_wait_have_one_snapshot_and_later_ones_a_younger_one() {
    let (_folder, path, _writer) = shared_file();
    let identity = Identity::of(&path).unwrap();
    let conn = connection::reader(&path, &prefix(), &identity).unwrap();
    let workers = |conn: &Connection| {
        let number = first(conn, "SELECT count(*) FROM worker", [], |row| row.count())?;
        Ok(number.unwrap_or_default())
    };
    let (jobs, queue) = mpsc::channel(QUEUE);
    let (one, before) = Task::new(move |conn: &Connection| {
        let before = workers(conn)?;
        let other = rusqlite::Connection::open(&path).unwrap();
        other
            .execute("INSERT INTO web_push_worker (id) VALUES (1)", [])
            .unwrap();
        Ok(before)
    });
    let (two, beside) = Task::new(workers);
    jobs.blocking_send(Command::Run(one)).unwrap();
    jobs.blocking_send(Command::Run(two)).unwrap();
    let reader = thread::spawn(move || read_together(&conn, queue));
    let shared = [before, beside].map(|answer| answer.blocking_recv().unwrap().unwrap());
    assert_eq!(shared, [0, 0]);
    let (later, after) = Task::new(workers);
    jobs.blocking_send(Command::Run(later)).unwrap();
    assert_eq!(after.blocking_recv().unwrap().unwrap(), 1);
    drop(jobs);
    reader.join().unwrap();
}

/// It costs the others their time: after an overload most of what waits is like that.
#[test]
fn a_read_whose_caller_is_gone_is_not_made() {
    let conn = connection::in_memory().unwrap();
    let read_alone = |conn: &Connection, queue| read(conn, &Arc::new(Mutex::new(queue)));
    for run in [read_together, read_alone] as [fn(&Connection, _); 2] {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let ran = Arc::new(AtomicUsize::new(0));
        let ask = || {
            let ran = Arc::clone(&ran);
            let (job, answer) = Task::new(move |_: &Connection| {
                ran.fetch_add(1, Ordering::Relaxed);
                Ok(())
            });
            jobs.blocking_send(Command::Run(job)).unwrap();
            answer
        };
        drop(ask());
        let answer = ask();
        drop(jobs);
        run(&conn, queue);
        answer.blocking_recv().unwrap().unwrap();
        assert_eq!(ran.load(Ordering::Relaxed), 1);
    }
}

/// Its caller may have asked again: it would be done twice.
#[test]
fn a_change_whose_caller_is_gone_is_not_made() {
    for is_first_gone in [true, false] {
        let conn = connection::in_memory().unwrap();
        let (jobs, queue) = mpsc::channel(QUEUE);
        let mut answers = Vec::new();
        for (id, is_gone) in [(1, is_first_gone), (2, !is_first_gone)] {
            let insert = move |conn: &Connection| {
                execute(conn, "INSERT INTO worker (id) VALUES (?1)", [id]).map(drop)
            };
            let (job, answer) = Task::new(insert);
            jobs.blocking_send(Command::Run(job)).unwrap();
            answers.extend((!is_gone).then_some(answer));
        }
        drop(jobs);
        write(&conn, queue, None, None);
        let answer = answers.pop().unwrap();
        answer.blocking_recv().unwrap().unwrap();
        let ids = all(&conn, "SELECT id FROM worker", [], |row| row.get::<i64>());
        assert_eq!(ids.unwrap(), [if is_first_gone { 2 } else { 1 }]);
    }
}

#[test]
fn a_log_that_is_too_large_is_folded_in_after_a_change() {
    let (_folder, path, conn) = shared_file();
    let (jobs, queue) = mpsc::channel(QUEUE);
    let (job, answer) = Task::new(|conn: &Connection| {
        execute(conn, "INSERT INTO worker (id) VALUES (1)", []).map(drop)
    });
    jobs.blocking_send(Command::Run(job)).unwrap();
    drop(jobs);
    write(&conn, queue, Some(&mut Log::of(&path, 1)), None);
    answer.blocking_recv().unwrap().unwrap();
    let log = std::fs::metadata(beside(&path, "-wal")).unwrap();
    assert_eq!(log.len(), 0);
}

#[test]
fn all_statements_of_a_read_see_one_snapshot() {
    let (_folder, path, _writer) = shared_file();
    let identity = Identity::of(&path).unwrap();
    let conn = connection::reader(&path, &prefix(), &identity).unwrap();
    let (jobs, queue) = mpsc::channel(QUEUE);
    let (job, answer) = Task::new(move |conn: &Connection| {
        let workers = || first(conn, "SELECT count(*) FROM worker", [], |row| row.count());
        let before = workers()?;
        let other = rusqlite::Connection::open(&path).unwrap();
        other
            .execute("INSERT INTO web_push_worker (id) VALUES (1)", [])
            .unwrap();
        Ok([before, workers()?])
    });
    jobs.blocking_send(Command::Run(job)).unwrap();
    drop(jobs);
    read(&conn, &Arc::new(Mutex::new(queue)));
    assert_eq!(answer.blocking_recv().unwrap().unwrap(), [Some(0); 2]);
}

/// The error with its causes, as the log has it.
fn told(error: &StoreError) -> Vec<String> {
    let first: Option<&dyn std::error::Error> = Some(error);
    let causes = std::iter::successors(first, |error| error.source());
    causes.map(ToString::to_string).collect()
}
