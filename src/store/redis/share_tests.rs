//! The shares of bands in the script are those of the rule.

use redis::Value;

use super::reply::{Reply, number};
use crate::store::rules::shares;
use crate::store::servers;

#[tokio::test]
async fn the_script_shares_rows_as_the_rule_does() {
    let Some(url) = servers::shared(servers::Kind::Redis) else {
        return;
    };
    let source = include_str!("lua/claims.lua");
    let (_, functions) = source.split_once("-- An eighth of a number").unwrap();
    let (functions, _) = functions.split_once("-- The queues of one band").unwrap();
    let script = format!(
        "-- An eighth of a number{functions}
         local answers = {{}}
         for i = 1, #ARGV, 5 do
           local numbers = {{}}
           for n = 0, 4 do numbers[n] = tonumber(ARGV[i + n]) end
           local of = shares(numbers[0], numbers[1], {{ [0] = numbers[2], numbers[3], numbers[4] }})
           for band = 0, 2 do answers[#answers + 1] = of[band] end
         end
         return answers"
    );
    let mut cases = Vec::new();
    for wanted in [0, 1, 2, 7, 8, 9, 40, 256] {
        for take in [0, 1, 6, 7, 8, 63, 64, 1_000_007] {
            for high in [0, 1, 5, 1000] {
                for normal in [0, 1, 5, 1000] {
                    for low in [0, 1, 5, 1000] {
                        cases.push((wanted, take, [high, normal, low]));
                    }
                }
            }
        }
    }
    let client = redis::Client::open(url).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    for cases in cases.chunks(500) {
        let mut cmd = redis::cmd("EVAL");
        cmd.arg(&script).arg(0);
        for (wanted, take, [high, normal, low]) in cases {
            cmd.arg(*wanted)
                .arg(*take)
                .arg(*high)
                .arg(*normal)
                .arg(*low);
        }
        let answer: Value = cmd.query_async(&mut connection).await.unwrap();
        let mut answer = Reply::of(answer).unwrap();
        for &(wanted, take, ready) in cases {
            let expected = shares(wanted, take, ready);
            for share in expected {
                let given = number(answer.value().unwrap()).unwrap();
                assert_eq!(given, share as u64, "{wanted} of {ready:?} in take {take}");
            }
        }
    }
}
