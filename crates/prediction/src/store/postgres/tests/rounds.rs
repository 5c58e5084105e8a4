//! The rounds of removal in a bucket, by which one database knows that it is the only one.

use super::super::{agree, orphans, settings};
use super::*;
use crate::store::suite::in_memory;

#[tokio::test]
async fn rounds_whose_names_do_not_reach_the_bucket_are_not_those_of_another_database() {
    let Some(url) = database() else { return };
    let store = Postgres::open(&url).unwrap();
    store.keep_pictures(Some("s3://pictures/of/mine"), in_memory()).unwrap();
    // No round but those of the test.
    let now = "UPDATE syncdiffusion.settings SET value = extract(epoch FROM now())::text WHERE name";
    execute(&url, &format!("{now} = '{}'", agree::SWEPT));
    let place = store.shared.objects.for_new().unwrap();
    store.shared.objects.set_place(Arc::clone(&place), false);
    let first = place.get(agree::ROUND).await.unwrap().unwrap();
    for _ in 0..20 {
        assert_eq!(orphans::round(&store.shared, &place, orphans::MIN_AGE).await.unwrap(), 0);
        // As if the bucket had refused it.
        place.put_as(agree::ROUND, &first.bytes, "text/plain").await.unwrap();
    }
    place.put(&picture(b"orphan")).await.unwrap();
    assert_eq!(orphans::round(&store.shared, &place, Duration::ZERO).await.unwrap(), 1);
    let rounds = store.shared.looks.read(|client| settings::known(client, agree::ROUNDS)).await.unwrap().unwrap();
    assert_eq!(rounds.split(' ').count(), 8, "{rounds}");
    assert!(rounds.split(' ').all(|round| round.len() == 40), "{rounds}");
}
