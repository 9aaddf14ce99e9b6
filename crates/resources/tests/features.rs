//! The table of the Gateway API's features names tests that exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// One row: feature, whether it is supported, and the tests or the reason.
struct Row<'a> {
    feature: &'a str,
    supported: &'a str,
    proof: &'a str,
}

fn rows(page: &str) -> Vec<Row<'_>> {
    let cells = |line: &'_ str| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>().len();
    page.lines()
        .filter(|line| line.starts_with("| ") && cells(line) == 3 && !line.starts_with("| feature |"))
        .map(|line| {
            let mut cells = line.trim_matches('|').split('|').map(str::trim);
            let mut next = || cells.next().unwrap_or_default();
            Row { feature: next(), supported: next(), proof: next() }
        })
        .collect()
}

#[test]
fn every_feature_that_is_supported_names_a_test_that_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = fs::read_to_string(root.join("docs/features.md")).unwrap();
    let rows = rows(&page);
    assert!(rows.len() > 70, "{}", rows.len());
    let mut seen = BTreeSet::new();
    for Row { feature, supported, proof } in rows {
        assert!(seen.insert(feature), "{feature} stands twice");
        assert!(["yes", "mesh only", "ingress only", "no"].contains(&supported), "{feature}: {supported:?}");
        assert!(!proof.is_empty(), "{feature} has neither proof nor reason");
        // Quoted by turns: a file, and a function in it.
        let quoted: Vec<&str> = proof.split('`').skip(1).step_by(2).collect();
        assert!(quoted.len().is_multiple_of(2), "{feature}: a file and a function, by turns: {proof}");
        assert!(supported == "no" || !quoted.is_empty(), "{feature} has no proof");
        for pair in quoted.chunks(2) {
            let path = root.join(pair[0]);
            let text =
                fs::read_to_string(&path).unwrap_or_else(|error| panic!("{feature}: {}: {error}", path.display()));
            let function = format!("fn {}(", pair[1]);
            let at = text.find(&function).unwrap_or_else(|| panic!("{feature}: {} has no {}", pair[0], pair[1]));
            let before = &text[..at];
            let marked = before.rfind("#[test]").max(before.rfind("#[tokio::test"));
            let between = marked.map(|mark| &before[mark..]).unwrap_or_default();
            assert!(marked.is_some() && !between.contains("fn "), "{feature}: {} is no test", pair[1]);
        }
    }
}

/// The names of the suite, so that none is forgotten.
#[test]
fn every_feature_of_the_suite_has_a_row() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = fs::read_to_string(root.join("docs/features.md")).unwrap();
    let rows: BTreeSet<&str> = rows(&page).iter().map(|row| row.feature).collect();
    let missing: Vec<&str> = NAMES.split_whitespace().filter(|name| !rows.contains(name)).collect();
    assert_eq!(missing, [] as [&str; 0]);
}

const NAMES: &str = "
    BackendTLSPolicy BackendTLSPolicySANValidation
    CookieSessionPersistence CookieSessionPersistencePermanentLifetime
    GRPCRoute GRPCRouteNamedRouteRule
    Gateway GatewayAddressEmpty GatewayBackendClientCertificate GatewayFrontendClientCertificateValidation
    GatewayFrontendClientCertificateValidationInsecureFallback GatewayHTTPListenerIsolation
    GatewayHTTPSListenerDetectMisdirectedRequests GatewayInfrastructurePropagation GatewayListenerSet GatewayPort8080
    GatewayStaticAddresses
    HTTPRoute HTTPRoute303RedirectStatusCode HTTPRoute307RedirectStatusCode HTTPRoute308RedirectStatusCode
    HTTPRouteBackendProtocolH2C HTTPRouteBackendProtocolWebSocket HTTPRouteBackendRequestHeaderModification
    HTTPRouteBackendTimeout HTTPRouteCORS HTTPRouteDestinationPortMatching HTTPRouteExternalAuth
    HTTPRouteExternalAuthForwardBody HTTPRouteExternalAuthGRPC HTTPRouteExternalAuthHTTP HTTPRouteHostRewrite
    HTTPRouteMethodMatching HTTPRouteNamedRouteRule HTTPRouteParentRefPort HTTPRoutePathRedirect HTTPRoutePathRewrite
    HTTPRoutePortRedirect HTTPRouteQueryParamMatching HTTPRouteRequestMirror HTTPRouteRequestMultipleMirrors
    HTTPRouteRequestPercentageMirror HTTPRouteRequestTimeout HTTPRouteResponseHeaderModification HTTPRouteRetry
    HTTPRouteRetryBackendTimeout HTTPRouteRetryConnectionError HTTPRouteSchemeRedirect
    Mesh MeshClusterIPMatching MeshConsumerRoute MeshHTTPRouteBackendRequestHeaderModification
    MeshHTTPRouteNamedRouteRule MeshHTTPRouteQueryParamMatching MeshHTTPRouteRedirectPath MeshHTTPRouteRedirectPort
    MeshHTTPRouteRewritePath MeshHTTPRouteSchemeRedirect
    ReferenceGrant ServiceImport TCPRoute TLSRoute TLSRouteModeTerminate UDPRoute
";
