//! Names of fields that a proxy looks for, as numbers.

/// Declares the names once: variant, text, recognition.
macro_rules! names {
    ($($variant:ident $text:literal)*) => {
        /// A field's name, when it is one of those that somebody on the path of a request asks for. Comparing two is comparing two
        /// numbers.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        #[allow(missing_docs, reason = "each says what it is")]
        pub enum Name {
            /// Any other name.
            Other,
            $($variant,)*
        }

        impl Name {
            /// All but [`Name::Other`]; numbers follow this order, from 1.
            pub(crate) const ALL: &'static [Name] = &[$(Name::$variant,)*];

            /// Which name this is. `text` is in lower case.
            pub fn of(text: &[u8]) -> Self {
                // Compared by length first, so that most names cost one comparison of bytes.
                match text {
                    $($text => Name::$variant,)*
                    _ => Name::Other,
                }
            }

            /// The name in lower case; empty for [`Name::Other`].
            pub const fn as_bytes(self) -> &'static [u8] {
                match self {
                    Name::Other => b"",
                    $(Name::$variant => $text,)*
                }
            }
        }
    };
}

names! {
    Te b"te"
    Via b"via"
    Date b"date"
    Host b"host"
    Vary b"vary"
    Accept b"accept"
    Cookie b"cookie"
    Expect b"expect"
    Origin b"origin"
    Server b"server"
    Trailer b"trailer"
    Upgrade b"upgrade"
    Location b"location"
    Forwarded b"forwarded"
    Connection b"connection"
    KeepAlive b"keep-alive"
    SetCookie b"set-cookie"
    UserAgent b"user-agent"
    VeerError b"veer-error"
    VeerProto b"veer-proto"
    RetryAfter b"retry-after"
    Tracestate b"tracestate"
    GrpcStatus b"grpc-status"
    Traceparent b"traceparent"
    XRequestId b"x-request-id"
    GrpcMessage b"grpc-message"
    GrpcTimeout b"grpc-timeout"
    ContentType b"content-type"
    CacheControl b"cache-control"
    Authorization b"authorization"
    ContentLength b"content-length"
    Http2Settings b"http2-settings"
    XForwardedFor b"x-forwarded-for"
    ContentEncoding b"content-encoding"
    ProxyConnection b"proxy-connection"
    XVeerClientId b"x-veer-client-id"
    XForwardedHost b"x-forwarded-host"
    AcceptEncoding b"accept-encoding"
    XForwardedProto b"x-forwarded-proto"
    TransferEncoding b"transfer-encoding"
    ProxyAuthorization b"proxy-authorization"
    ProxyAuthenticate b"proxy-authenticate"
    EndpointLoadMetrics b"endpoint-load-metrics"
}

#[cfg(test)]
mod tests {
    use super::Name;

    #[test]
    fn a_name_is_recognised_by_its_text() {
        assert_eq!(Name::of(b"host"), Name::Host);
        assert_eq!(Name::of(Name::GrpcStatus.as_bytes()), Name::GrpcStatus);
        assert_eq!(Name::of(b"x-mine"), Name::Other);
        assert_eq!(Name::of(b""), Name::Other);
    }
}
