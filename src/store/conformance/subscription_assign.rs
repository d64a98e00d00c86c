//! S21: an administrator sets the user and the tags of a row.

use super::Handles;
use super::sample::{at, endpoint, key_id, new, of, put, row, subscription, tag, tagged, tags};
use crate::broadcast::{Audience, Principal};
use crate::store::{
    Assignment, Change, CountFilter, Liveness, NewSubscription, RetireReason, SubscriptionLimits,
    SubscriptionRecord, SubscriptionStore, Upserted,
};
use crate::subscription::SubscriptionId;

fn to(principal: Option<&str>) -> Assignment {
    Assignment {
        principal: Some(principal.map(Principal::from)),
        tags: None,
    }
}

fn labelled(texts: &[&str]) -> Assignment {
    Assignment {
        principal: None,
        tags: Some(tags(texts)),
    }
}

async fn assign<S: SubscriptionStore + ?Sized>(
    store: &S,
    row: &SubscriptionRecord,
    assignment: Assignment,
) -> SubscriptionRecord {
    put(store, &NewSubscription::assigning(row, assignment), at(50))
        .await
        .0
}

async fn live<S: SubscriptionStore + ?Sized>(store: &S, audience: Audience) -> (u64, usize) {
    let filter = CountFilter::new(audience.clone(), Liveness::Live);
    let count = store.count(&filter, at(60)).await.unwrap();
    (
        count,
        store.page(&audience, None, 10, at(60)).await.unwrap().len(),
    )
}

/// S21: the user and the tags are replaced, each if it is given, and audiences and counts follow.
pub async fn s21_an_assigned_row_is_in_its_audiences<S>(h: &Handles<S>)
where
    S: SubscriptionStore + ?Sized,
{
    let store = h.store();
    let user = |name: &str| Audience::User(name.into());
    let (first, _) = put(store, &tagged(&["a", "b"], of("alice", new(1))), at(10)).await;
    put(store, &tagged(&["b"], new(2)), at(10)).await;

    let mut expected = first.clone();
    expected.principal = Some("bob".into());
    assert_eq!(assign(store, &first, to(Some("bob"))).await, expected);
    assert_eq!(row(h.second(), 1).await.as_ref(), Some(&expected));
    assert_eq!(live(store, user("alice")).await, (0, 0));
    assert_eq!(live(store, user("bob")).await, (1, 1));

    expected.tags = tags(&["b", "c"]);
    assert_eq!(assign(store, &first, labelled(&["c", "b"])).await, expected);
    for (name, rows) in [("a", 0), ("b", 2), ("c", 1)] {
        let found = live(store, Audience::Tag(tag(name))).await;
        assert_eq!(found, (rows, rows as usize), "{name}");
    }

    expected.principal = None;
    expected.tags.clear();
    let nothing = Assignment {
        principal: Some(None),
        tags: Some(tags(&[])),
    };
    assert_eq!(assign(store, &first, nothing.clone()).await, expected);
    // Once more, and nothing at all.
    assert_eq!(assign(store, &first, nothing).await, expected);
    assert_eq!(assign(store, &first, Assignment::default()).await, expected);
    assert_eq!(live(store, user("bob")).await, (0, 0));
    assert_eq!(live(store, Audience::Tag(tag("b"))).await, (1, 1));
    assert_eq!(live(store, Audience::Tag(tag("c"))).await, (0, 0));
    assert_eq!(live(store, Audience::All).await, (2, 2));
    assert_eq!(store.owned_by(&"bob".into(), None, 10).await.unwrap(), []);
    // Without a user it may be unproven again, and counts as such.
    let limits = SubscriptionLimits::default().with_unproven(2);
    assert!(store.upsert(&new(3), &limits, at(51)).await.is_err());
    assign(store, &expected, to(Some("alice"))).await;
    assert!(store.upsert(&new(3), &limits, at(51)).await.is_ok());
}

/// S21: a row that gets no messages stays as it is.
pub async fn s21_an_assignment_revives_no_row<S>(h: &Handles<S>)
where
    S: SubscriptionStore + ?Sized,
{
    let store = h.store();
    let (first, _) = put(store, &new(1), at(10)).await;
    let mut expiring = new(2);
    expiring.subscription = subscription(2, 1).with_expiration_time(Some(at(20)));
    let (second, _) = put(store, &expiring, at(10)).await;
    let retire = Change::Retire {
        key: endpoint(1).key(),
        reason: RetireReason::Gone,
        observed_at: at(11),
    };
    let use_key = Change::UseVapidKey {
        key: endpoint(2).key(),
        vapid_key: key_id(9),
    };
    let failed = Change::Failed(endpoint(2).key());
    store
        .apply(&[retire, failed, use_key], at(12))
        .await
        .unwrap();
    for (number, old) in [(1, first), (2, second)] {
        let mut expected = row(store, number).await.unwrap();
        expected.principal = Some("alice".into());
        expected.tags = tags(&["a"]);
        let both = Assignment {
            tags: Some(tags(&["a"])),
            ..to(Some("alice"))
        };
        // The row as it was read before these changes.
        assert_eq!(assign(store, &old, both).await, expected);
        assert_eq!(row(h.second(), number).await, Some(expected));
    }
    assert_eq!(live(store, Audience::User("alice".into())).await, (0, 0));
    assert_eq!(live(store, Audience::Tag(tag("a"))).await, (0, 0));
    let filter = CountFilter::new(Audience::All, Liveness::Retired);
    assert_eq!(store.count(&filter, at(60)).await.unwrap(), 1);
}

/// S21: neither a row that is gone nor one that has another id since is changed.
pub async fn s21_only_the_known_row_is_assigned<S>(h: &Handles<S>)
where
    S: SubscriptionStore + ?Sized,
{
    let store = h.store();
    let limits = SubscriptionLimits::default();
    let (first, _) = put(store, &new(1), at(10)).await;
    store
        .apply(&[Change::delete(&first)], at(11))
        .await
        .unwrap();
    let wanted = NewSubscription::assigning(&first, to(Some("mallory")));
    let answer = store.upsert(&wanted, &limits, at(12)).await.unwrap();
    assert_eq!(answer, Upserted::Conflict);
    assert_eq!(row(store, 1).await, None);
    let (again, _) = put(store, &of("alice", new(1)), at(13)).await;
    assert_ne!(again.id, first.id);
    let answer = store.upsert(&wanted, &limits, at(14)).await.unwrap();
    assert_eq!(answer, Upserted::Conflict);
    assert_eq!(row(store, 1).await, Some(again.clone()));
    // With any id that is not the row's.
    let mut other = again;
    other.id = SubscriptionId::random();
    let wanted = NewSubscription::assigning(&other, labelled(&["a"]));
    let answer = store.upsert(&wanted, &limits, at(15)).await.unwrap();
    assert_eq!(answer, Upserted::Conflict);
}
