//! A call and the configuration that it began under, which it keeps until it is over.

use std::rc::Rc;

use tollmesh_wire::Timestamp;

use super::{Effects, Input, Session, Site};

/// One HTTP call, bound to the site of its first moment.
///
/// The configuration may be replaced, or refused, while a call is under way. Whatever the call waits
/// for, and whatever is withheld of it, is then still owed to it: an answer to its reservation, the
/// tail of a body that was spliced, its event.
#[derive(Default)]
pub struct Bound {
    session: Session,
    site: Option<Rc<Site>>,
}

impl Bound {
    /// The call.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// What the call goes by, once it has begun under a configuration.
    pub fn site(&self) -> Option<&Site> {
        self.site.as_deref()
    }

    /// Takes one input as [`Session::step`] does. `present` is what a call that begins now goes by;
    /// one that begins without any is never looked at.
    pub fn step(
        &mut self,
        present: Option<&Rc<Site>>,
        input: Input<'_>,
        now: Timestamp,
    ) -> Effects {
        if let Input::RequestHead { .. } = input {
            self.site = present.cloned();
        }
        match &self.site {
            Some(site) => self.session.step(site, input, now),
            None => Effects::default(),
        }
    }
}
