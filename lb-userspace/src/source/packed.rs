//! Objects in compact form. All objects are kept that way; as such they are only made when somebody looks at them.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, LazyLock};

use postcard::ser_flavors::Flavor;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::kube::{Kind, Name, Object, ObjectKey};

/// What stands for a text where only equality matters: 128 bits with a secret, so that nobody can find two texts of one
/// digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Digest(u64, u64);

impl Digest {
    /// The least of all.
    pub(super) const MIN: Self = Self(0, 0);

    /// The digest of some texts, each apart from the next.
    pub(super) fn of(texts: &[&str]) -> Self {
        static SECRETS: LazyLock<[RandomState; 2]> = LazyLock::new(Default::default);
        let [first, second] = SECRETS.each_ref().map(|secret| secret.hash_one(texts));
        Self(first, second)
    }

    /// The identity of an object.
    pub(super) fn of_object(kind: Kind, name: &Name) -> Self {
        Self::of(&[kind.name(), &name.namespace, &name.name])
    }

    /// The identity of an object.
    pub(super) fn of_key(key: &ObjectKey) -> Self {
        Self::of_object(key.kind, &key.name)
    }

    /// Half of it, for what may now and then be equal by chance.
    pub(super) fn half(self) -> u64 {
        self.0
    }
}

/// An object in compact form: its kind in the first byte, then its fields. Cheap to clone. Equal forms are equal objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed(Arc<[u8]>);

/// Bytes that grow.
struct Growing(Vec<u8>);

impl Flavor for Growing {
    type Output = Vec<u8>;

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<Vec<u8>> {
        Ok(self.0)
    }
}

impl Packed {
    /// Packs an object. Fails for none that was made of a manifest: all are texts, numbers, lists and maps.
    pub fn new(object: &Object) -> Option<Self> {
        fn pack<T: Serialize>(kind: Kind, object: &T) -> postcard::Result<Vec<u8>> {
            postcard::serialize_with_flavor(object, Growing(vec![kind as u8]))
        }
        let kind = object.kind();
        let bytes = match object {
            Object::Service(object) => pack(kind, object),
            Object::EndpointSlice(object) => pack(kind, object),
            Object::Endpoints(object) => pack(kind, object),
            Object::Pod(object) => pack(kind, object),
            Object::Node(object) => pack(kind, object),
            Object::Deployment(object) | Object::ReplicaSet(object) | Object::StatefulSet(object) => {
                pack(kind, object)
            }
        };
        bytes.ok().map(|bytes| Self(bytes.into()))
    }

    /// Its kind.
    pub fn kind(&self) -> Option<Kind> {
        self.0.first().and_then(|number| Kind::ALL.get(usize::from(*number)).copied())
    }

    /// The object; `None` never comes of what [`Self::new`] has packed.
    pub fn unpack(&self) -> Option<Object> {
        fn object<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
            postcard::from_bytes(bytes).ok()
        }
        let fields = &self.0[1..];
        Some(match self.kind()? {
            Kind::Service => Object::Service(object(fields)?),
            Kind::EndpointSlice => Object::EndpointSlice(object(fields)?),
            Kind::Endpoints => Object::Endpoints(object(fields)?),
            Kind::Pod => Object::Pod(object(fields)?),
            Kind::Node => Object::Node(object(fields)?),
            Kind::Deployment => Object::Deployment(object(fields)?),
            Kind::ReplicaSet => Object::ReplicaSet(object(fields)?),
            Kind::StatefulSet => Object::StatefulSet(object(fields)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::document;
    use super::*;

    #[test]
    fn every_kind_survives_being_packed() {
        let text = "kind: List\nitems:\n\
            - {kind: Service, metadata: {name: a, labels: {b: c}}, spec: {type: NodePort, ports: [{name: w, port: 80, targetPort: http, nodePort: 30000}, \
              {name: x, port: 81, targetPort: 82}], sessionAffinityConfig: {clientIP: {timeoutSeconds: 5}}}}\n\
            - {kind: EndpointSlice, metadata: {name: a, labels: {kubernetes.io/service-name: a}}, addressType: IPv4, endpoints: [{addresses: [10.0.0.1], conditions: {ready: false}, \
              hints: {forZones: [{name: z}]}, targetRef: {kind: Pod, name: p}}], ports: [{port: 80}]}\n\
            - {kind: Endpoints, metadata: {name: a}, subsets: [{addresses: [{ip: 10.0.0.1, nodeName: n}], ports: [{port: 80}]}]}\n\
            - {kind: Pod, metadata: {name: a}, spec: {containers: [{name: c, ports: [{containerPort: 80}]}]}, status: {podIP: 10.0.0.1}}\n\
            - {kind: Node, metadata: {name: a}, spec: {podCIDR: 10.0.0.0/24}}\n\
            - {kind: Deployment, metadata: {name: a}, spec: {replicas: 2}}\n\
            - {kind: ReplicaSet, metadata: {name: a}, spec: {replicas: 2}}\n\
            - {kind: StatefulSet, metadata: {name: a}, spec: {replicas: 2, serviceName: s}}\n";
        let contents = document::read(document::Document { text, lines_before: 0 });
        assert_eq!(contents.findings, []);
        let kinds: Vec<_> = contents.objects.iter().map(|(object, _)| object.kind()).collect();
        assert_eq!(kinds, Kind::ALL);
        for (object, _) in contents.objects {
            let packed = Packed::new(&object).unwrap();
            assert_eq!(packed.kind(), Some(object.kind()));
            assert_eq!(packed.unpack(), Some(object));
        }
    }

    #[test]
    fn digests_keep_texts_apart() {
        assert_eq!(Digest::of(&["a", "b"]), Digest::of(&["a", "b"]));
        assert_ne!(Digest::of(&["a", "b"]), Digest::of(&["ab", ""]));
        assert_ne!(Digest::of(&["a"]), Digest::of(&["a", ""]));
    }
}
