//! `GET /devices` and `DELETE /devices/{id}`: the subscriptions of the signed-in user.

use http::StatusCode;
use http::request::Parts;
use serde::Serialize;

use super::registration::principal;
use crate::api::WebPushService;
use crate::api::problem::{Problem, ProblemKind};
use crate::api::reply::{self, Reply};
use crate::broadcast::{Principal, Tag};
use crate::engine::Device;
use crate::moment::iso8601;
use crate::schedule::{DailyTime, Plan, Schedule, Weekdays, Zone};
use crate::store::ReasonWord;
use crate::subscription::SubscriptionId;

#[derive(Serialize)]
struct DevicesAnswer {
    devices: Vec<DeviceAnswer>,
}

/// A device without its endpoint and keys, which are secrets: with them anyone can send to it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeviceAnswer {
    id: SubscriptionId,
    push_service: &'static str,
    state: &'static str,
    tags: Vec<Tag>,
    created_at: String,
    last_seen_at: String,
    last_success_at: Option<String>,
    last_failure: Option<FailureAnswer>,
    schedules: Vec<ScheduleAnswer>,
}

/// Why the last attempt failed that was written.
#[derive(Serialize)]
struct FailureAnswer {
    at: String,
    status: Option<u16>,
    reason: Option<ReasonWord>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ScheduleAnswer {
    notify_type: &'static str,
    notify_time: NotifyTime,
    message: Option<String>,
    next_at: String,
}

/// A time in the form that `/subscribe` takes.
#[derive(Serialize)]
#[serde(untagged)]
enum NotifyTime {
    Utc {
        #[serde(rename = "utcHour")]
        utc_hour: u8,
        minute: u8,
    },
    Local {
        hour: u8,
        minute: u8,
        zone: String,
        weekdays: Vec<&'static str>,
    },
}

#[derive(Serialize)]
struct RemoveAnswer {
    success: bool,
    message: &'static str,
}

pub(super) async fn list(api: &WebPushService, parts: &Parts) -> Result<Reply, Problem> {
    let devices = api.engine.devices(signed_in(parts)?).await?;
    let devices = devices.into_iter().map(DeviceAnswer::from).collect();
    Ok(reply::json(StatusCode::OK, &DevicesAnswer { devices }))
}

/// An unknown id, another user's and a malformed one get the same answer.
pub(super) async fn remove(
    api: &WebPushService,
    parts: &Parts,
    id: &str,
) -> Result<Reply, Problem> {
    let user = signed_in(parts)?;
    let unknown = || Problem::from(ProblemKind::UnknownSubscription);
    let id = id.parse().map_err(|_| unknown())?;
    if !api.engine.remove(user, id).await? {
        return Err(unknown());
    }
    let answer = RemoveAnswer {
        success: true,
        message: "Device removed successfully",
    };
    Ok(reply::json(StatusCode::OK, &answer))
}

fn signed_in(parts: &Parts) -> Result<&Principal, Problem> {
    let required = || {
        Problem::from(ProblemKind::PrincipalRequired)
            .with_detail("Only signed-in users have devices.")
    };
    principal(parts).ok_or_else(required)
}

impl From<Device> for DeviceAnswer {
    fn from(device: Device) -> Self {
        Self {
            id: device.id,
            push_service: device.push_service.as_str(),
            state: device.state.as_str(),
            tags: device.tags.into_iter().collect(),
            created_at: iso8601(device.created_at),
            last_seen_at: iso8601(device.last_seen_at),
            last_success_at: device.last_success_at.map(iso8601),
            last_failure: device.last_failure.map(|last| FailureAnswer {
                at: iso8601(last.at),
                status: last.failure.status,
                reason: last.failure.reason,
            }),
            schedules: device
                .schedules
                .into_iter()
                .filter_map(ScheduleAnswer::of)
                .collect(),
        }
    }
}

impl ScheduleAnswer {
    /// Returns `None` for a schedule of the application, which belongs to no device.
    fn of(schedule: Schedule) -> Option<Self> {
        let Plan::Subscriber {
            notify_type,
            message,
            ..
        } = schedule.plan
        else {
            return None;
        };
        Some(Self {
            notify_type: notify_type.as_str(),
            notify_time: NotifyTime::of(&schedule.time),
            message,
            next_at: iso8601(schedule.next_fire_at),
        })
    }
}

impl NotifyTime {
    fn of(time: &DailyTime) -> Self {
        let (minute, weekdays) = (time.minute(), time.weekdays());
        if *time.zone() == Zone::utc() && weekdays == Weekdays::ALL {
            let utc_hour = time.hour();
            return Self::Utc { utc_hour, minute };
        }
        Self::Local {
            hour: time.hour(),
            minute,
            zone: time.zone().name().to_owned(),
            weekdays: weekdays.names().collect(),
        }
    }
}
