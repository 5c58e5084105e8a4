//! Why a request failed.

use std::error::Error;
use std::iter;

/// What led to an error, from the nearest cause to the first.
pub fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    iter::successors(error.source(), |&cause| cause.source())
}

/// Whether an error of a type is among the causes of another.
pub fn has_cause<T: Error + 'static>(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(<dyn Error>::is::<T>)
}

/// Why a request failed, causes included, without its URL: that may contain secrets, such as the signature of an
/// address that a redirect led to.
pub fn reason(error: reqwest::Error) -> String {
    chain(&error.without_url())
}

fn chain(error: &(dyn Error + 'static)) -> String {
    let causes = causes(error).map(ToString::to_string);
    // Some errors repeat their cause in their own words.
    causes.fold(error.to_string(), |text, cause| if text.contains(&cause) { text } else { format!("{text}: {cause}") })
}

#[cfg(test)]
mod tests {
    use std::fmt;
    use std::io;

    use super::*;

    #[derive(Debug)]
    struct Outer(&'static str, io::Error);

    impl fmt::Display for Outer {
        fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
            to.write_str(self.0)
        }
    }

    impl Error for Outer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.1)
        }
    }

    #[test]
    fn causes_are_named_once() {
        let cause = || io::Error::other("connection refused");
        assert_eq!(chain(&Outer("cannot connect", cause())), "cannot connect: connection refused");
        assert_eq!(chain(&Outer("connection refused by the peer", cause())), "connection refused by the peer");
        assert!(has_cause::<io::Error>(&Outer("", cause())) && !has_cause::<fmt::Error>(&Outer("", cause())));
    }
}
