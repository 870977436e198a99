"""What is a usable key, and which one is chosen?"""

from __future__ import annotations

import math
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import JWKRegistry
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm, get_default_algorithms

from support.client_keys import private_key
from toolguard.tokens.keys import Key, KeySet, KeySetError, StaticKeys

RSA = private_key("RS256")
P256, P384, P521 = (
    ec.generate_private_key(curve()) for curve in (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
)
ED25519 = ed25519.Ed25519PrivateKey.generate()

RSA_JWK = RSAAlgorithm.to_jwk(RSA.public_key(), as_dict=True)
P256_JWK = ECAlgorithm.to_jwk(P256.public_key(), as_dict=True)
# RFC 8037, appendix A.2.
ED25519_JWK = {
    "kty": "OKP",
    "crv": "Ed25519",
    "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
}
RSA_ALGORITHMS = {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
EVERY_ALGORITHM = RSA_ALGORITHMS | {"ES256", "ES384", "ES512", "EdDSA", "Ed25519"}


def rsa_jwk(**changes: Any) -> dict[str, Any]:
    jwk: dict[str, Any] = {**RSA_JWK, "kid": "a", **changes}
    del jwk["key_ops"]
    return jwk | ({"key_ops": changes["key_ops"]} if "key_ops" in changes else {})


def p256_jwk(**changes: Any) -> dict[str, Any]:
    return {"kid": "a", **P256_JWK, **changes}


def key_set(*jwks: object) -> KeySet:
    return KeySet.from_jwks({"keys": list(jwks)})


def only_problem(jwk: object) -> str:
    """Return why a key is left out of a set that holds a good one, too."""
    keys = key_set(jwk, {**ED25519_JWK, "kid": "good"})
    assert [key.kid for key in keys.keys] == ["good"]
    assert len(keys.skipped) == 1
    return keys.skipped[0]


def base64url(number: int) -> str:
    return jwt.utils.to_base64url_uint(number).decode()


def pem_of(key: Any) -> bytes:
    encoded: bytes = key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return encoded


# What a key may verify


@pytest.mark.parametrize(
    ("private", "algorithm"),
    [
        *((RSA, name) for name in sorted(RSA_ALGORITHMS)),
        (P256, "ES256"),
        (P384, "ES384"),
        (P521, "ES512"),
        (ED25519, "EdDSA"),
        (ED25519, "Ed25519"),
    ],
)
def test_a_key_of_the_set_verifies_what_its_private_half_signed(
    private: Any, algorithm: str
) -> None:
    name = "EdDSA" if algorithm == "Ed25519" else algorithm
    implementation: Any = get_default_algorithms()[name]
    jwk = implementation.to_jwk(private.public_key(), as_dict=True)
    jwk.pop("key_ops", None)
    (key,) = key_set({**jwk, "kid": "a"}).find("a", algorithm)
    signature = implementation.sign(b"signed", private)
    assert implementation.verify(b"signed", key.material, signature)
    assert not implementation.verify(b"forged", key.material, signature)


@pytest.mark.parametrize(
    ("jwk", "algorithms"),
    [
        (rsa_jwk(), RSA_ALGORITHMS),
        (rsa_jwk(alg="PS256"), {"PS256"}),
        (rsa_jwk(alg=None), RSA_ALGORITHMS),
        (p256_jwk(), {"ES256"}),
        (p256_jwk(alg="ES256"), {"ES256"}),
        (ED25519_JWK, {"EdDSA", "Ed25519"}),
        ({**ED25519_JWK, "alg": "EdDSA"}, {"EdDSA", "Ed25519"}),
        ({**ED25519_JWK, "alg": "Ed25519"}, {"EdDSA", "Ed25519"}),
    ],
)
def test_the_algorithms_of_a_key_follow_from_its_kind_and_its_alg(
    jwk: dict[str, Any], algorithms: set[str]
) -> None:
    assert key_set(jwk).keys[0].algorithms == algorithms


@pytest.mark.parametrize(
    "extra",
    [
        {"use": "sig"},
        {"key_ops": ["verify"]},
        {"key_ops": ["sign", "verify"]},
        {"use": "sig", "key_ops": ["verify"]},
        {"use": None},
        {"x5c": ["MIIB"], "x5t": "abc", "ext": True, "unknown": {}},
    ],
)
def test_a_key_for_signatures_is_used(extra: dict[str, Any]) -> None:
    assert key_set(rsa_jwk(**extra)).find("a", "RS256")


# Which keys are left out


@pytest.mark.parametrize(
    ("jwk", "reason"),
    [
        (rsa_jwk(use="enc"), "use"),
        (rsa_jwk(use=["sig"]), "use"),
        (rsa_jwk(key_ops=["encrypt"]), "key_ops"),
        (rsa_jwk(key_ops=["sign"]), "key_ops"),
        (rsa_jwk(key_ops=[]), "key_ops"),
        (rsa_jwk(key_ops="verify"), "key_ops"),
        (rsa_jwk(key_ops=["verify", "verify"]), "key_ops"),
        (rsa_jwk(key_ops=["verify", "encrypt"]), "key_ops"),
        (rsa_jwk(alg="RSA-OAEP"), "alg"),
        (rsa_jwk(alg="HS256"), "alg"),
        (rsa_jwk(alg="none"), "alg"),
        (rsa_jwk(alg="rs256"), "alg"),
        (rsa_jwk(alg="ES256"), "alg"),
        (rsa_jwk(alg=["RS256"]), "alg"),
        (p256_jwk(alg="ES384"), "alg"),
        (rsa_jwk(kid=7), "kid"),
        (rsa_jwk(kid=["a"]), "kid"),
        (rsa_jwk(kty="rsa"), "kty"),
        (rsa_jwk(kty=None), "kty"),
        (rsa_jwk(kty=["RSA"]), "kty"),
        ({"kid": "a"}, "kty"),
        (rsa_jwk(kty="AKP"), "kty"),
        (rsa_jwk(kty="EC"), "lacks"),
        (rsa_jwk(e=None), "lacks"),
        (rsa_jwk(n=12345), "lacks"),
        (rsa_jwk(n=RSA_JWK["n"] + "="), "malformed"),
        (rsa_jwk(n=" " + RSA_JWK["n"]), "malformed"),
        (rsa_jwk(n="+/" + RSA_JWK["n"]), "malformed"),
        (rsa_jwk(n="A" * 2732), "too long"),
        (rsa_jwk(n=""), "valid"),
        (rsa_jwk(e="OKP"), "malformed"),
        (p256_jwk(crv=["P-256"]), "known kind"),
        (p256_jwk(crv=None), "known kind"),
        (rsa_jwk(e="AQ"), "valid"),
        (rsa_jwk(e="Ag"), "valid"),
        (p256_jwk(crv="P-384"), "valid"),
        (p256_jwk(crv="secp256k1"), "valid"),
        (p256_jwk(y=P256_JWK["x"]), "valid"),
        (p256_jwk(x=P256_JWK["x"][:-3]), "valid"),
        ({**ED25519_JWK, "x": ED25519_JWK["x"][:-3]}, "valid"),
        ({**ED25519_JWK, "crv": "X25519"}, "valid"),
        ("a", "object"),
        (None, "object"),
        ([], "object"),
    ],
)
def test_a_key_that_must_not_verify_is_left_out_with_its_reason(jwk: object, reason: str) -> None:
    assert reason in only_problem(jwk)


def test_a_supported_kind_on_an_unsupported_curve_is_left_out() -> None:
    secp256k1 = ECAlgorithm.to_jwk(
        ec.generate_private_key(ec.SECP256K1()).public_key(), as_dict=True
    )
    ed448_jwk = OKPAlgorithm.to_jwk(ed448.Ed448PrivateKey.generate().public_key(), as_dict=True)
    assert "curve" in only_problem(secp256k1)
    assert "valid" in only_problem(ed448_jwk)


@pytest.mark.parametrize("member", ["d", "p", "q", "dp", "dq", "qi", "oth", "k"])
def test_a_key_with_a_private_member_is_left_out(member: str) -> None:
    assert "private" in only_problem(rsa_jwk(**{member: "AQAB"}))


def test_a_whole_private_key_is_left_out_and_not_quoted() -> None:
    jwk = ECAlgorithm.to_jwk(P256, as_dict=True)
    problem = only_problem({**jwk, "kid": "leaked"})
    assert problem == "key 'leaked' holds private members: publish public keys only"


def test_rsa_below_2048_bits_is_left_out() -> None:
    weak = rsa.RSAPublicNumbers(65537, (1 << 2046) + 1).public_key()
    strong = rsa.RSAPublicNumbers(65537, (1 << 2047) + 1).public_key()
    assert "2047 bits" in only_problem(rsa_jwk(n=base64url(weak.public_numbers().n)))
    assert key_set(rsa_jwk(n=base64url(strong.public_numbers().n))).find("a", "RS256")


def roca_modulus(largest_prime: int) -> int:
    """Return a number of 2048 bits that is a power of 65537 modulo the primes so far."""
    primes = [n for n in range(2, largest_prime + 1) if all(n % d for d in range(2, n))]
    product = math.prod(primes)
    return pow(65537, 1234567, product) + product * ((1 << 2047) // product + 1)


def test_a_modulus_with_the_roca_fingerprint_is_left_out() -> None:
    # The flawed generator builds keys of this size from the primes up to 701.
    assert "CVE-2017-15361" in only_problem(rsa_jwk(n=base64url(roca_modulus(701))))


def test_a_modulus_that_looks_like_it_by_chance_is_used() -> None:
    assert key_set(rsa_jwk(n=base64url(roca_modulus(167)))).find("a", "RS256")


@pytest.mark.parametrize(
    "point",
    [
        bytes(32),
        b"\x01" + bytes(31),
        bytes(31) + b"\x80",
        (2**255 - 20).to_bytes(32, "little"),
        (2**255 - 19).to_bytes(32, "little"),
        (2**255 - 18).to_bytes(32, "little"),
        bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
        bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85"),
        bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
    ],
)
def test_an_ed25519_point_of_small_order_is_left_out(point: bytes) -> None:
    x = jwt.utils.base64url_encode(point).decode()
    assert "small order" in only_problem({**ED25519_JWK, "x": x})


# Which sets are refused


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (None, "list"),
        ([], "list"),
        ("keys", "list"),
        ({}, "list"),
        ({"keys": {}}, "list"),
        (rsa_jwk(), "list"),
        ({"keys": []}, "no usable key"),
        ({"keys": [rsa_jwk(use="enc")]}, "'a' is not for signatures"),
        ({"keys": [rsa_jwk(), *[None] * 100]}, "more than 100"),
        ({"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}, "symmetric"),
    ],
)
def test_a_set_without_usable_keys_is_refused(document: object, reason: str) -> None:
    with pytest.raises(KeySetError, match=reason) as caught:
        KeySet.from_jwks(document)
    assert "c2VjcmV0" not in str(caught.value)


def test_a_symmetric_key_beside_public_ones_is_left_out() -> None:
    keys = key_set(rsa_jwk(), {"kty": "oct", "k": "c2VjcmV0", "kid": "b"})
    assert [key.kid for key in keys.keys] == ["a"]
    assert keys.skipped == ("key 'b' is a symmetric key (kty oct)",)


def test_a_hundred_keys_are_read() -> None:
    keys = key_set(*({**ED25519_JWK, "kid": str(number)} for number in range(100)))
    assert len(keys.keys) == 100


def test_a_name_shared_with_a_key_for_encryption_is_not_ambiguous() -> None:
    keys = key_set(rsa_jwk(use="enc"), p256_jwk())
    assert [key.algorithms for key in keys.keys] == [{"ES256"}]


def test_the_name_of_a_key_cannot_forge_a_log_line() -> None:
    kid = "\u0430\n\u202e" + "b" * 999
    shown = "'\\u0430\\n\\u202e" + "b" * 61 + "'"
    assert only_problem(rsa_jwk(kid=kid, use="enc")) == f"key {shown} is not for signatures (use)"


# Choosing


def test_a_key_is_found_by_its_exact_name_and_algorithm() -> None:
    keys = key_set(rsa_jwk(kid="a"), rsa_jwk(kid="b", alg="RS512"))
    assert [key.kid for key in keys.find("a", "RS512")] == ["a"]
    assert [key.kid for key in keys.find("b", "RS512")] == ["b"]
    for kid, algorithm in [("b", "RS256"), ("A", "RS256"), ("", "RS256"), ("a", "ES256")]:
        assert keys.find(kid, algorithm) == ()


def test_keys_of_one_name_are_found_by_their_algorithms() -> None:
    keys = key_set(rsa_jwk(alg="RS256"), rsa_jwk(alg="PS256"), rsa_jwk(), p256_jwk())
    assert len(keys.find("a", "RS256")) == len(keys.find("a", "PS256")) == 2
    assert len(keys.find("a", "RS512")) == len(keys.find("a", "ES256")) == 1


def test_at_most_ten_keys_are_found_for_a_token() -> None:
    keys = key_set(*(p256_jwk(kid=name) for name in "abcdefghijkl"), *[rsa_jwk()] * 12)
    assert len(keys.find(None, "ES256")) == len(keys.find("a", "RS256")) == 10


def test_without_a_name_every_fitting_key_is_found() -> None:
    keys = key_set(rsa_jwk(kid="a"), rsa_jwk(kid="b", alg="RS512"), p256_jwk(kid=None))
    assert [key.kid for key in keys.find(None, "RS256")] == ["a"]
    assert [key.kid for key in keys.find(None, "ES256")] == [None]
    assert [key.kid for key in keys.find(None, "RS512")] == ["a", "b"]
    assert keys.find(None, "EdDSA") == ()


def test_nameless_keys_that_fit_are_all_found() -> None:
    keys = key_set(p256_jwk(kid=None), p256_jwk(kid=None))
    assert keys.find(None, "ES256") == keys.keys


def test_a_nameless_key_of_a_set_is_not_found_by_name() -> None:
    assert key_set(p256_jwk(kid=None)).find("a", "ES256") == ()


@pytest.mark.parametrize("algorithm", ["none", "HS256", "hs256", "", "ES256K"])
def test_no_key_is_found_for_an_algorithm_that_is_not_asymmetric(algorithm: str) -> None:
    keys = key_set(rsa_jwk(), p256_jwk(kid="b"))
    assert keys.find("a", algorithm) == keys.find(None, algorithm) == ()


def test_a_representation_shows_names_and_algorithms_only() -> None:
    keys = key_set(p256_jwk(), {**ED25519_JWK, "kid": "b"})
    shown = "<KeySet: <Key: 'a' for ES256>, <Key: 'b' for Ed25519 EdDSA>>"
    assert repr(keys) == shown
    assert repr(StaticKeys(keys)) == f"<StaticKeys: {shown}>"


# Laws

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
)
MEMBERS = st.sampled_from(["kty", "kid", "use", "key_ops", "alg", "crv", "n", "e", "x", "y", "d"])
VALUES = JSON | st.sampled_from(
    ["RSA", "EC", "OKP", "oct", "sig", "P-256", "Ed25519", "ES256", "RS256", "AQAB", ["verify"]]
)
JWKS = st.builds(
    lambda jwk, changes: {**jwk, **changes},
    st.sampled_from([rsa_jwk(), p256_jwk(), ED25519_JWK]),
    st.dictionaries(MEMBERS, VALUES, max_size=3),
)


@given(JSON | st.fixed_dictionaries({"keys": st.lists(JWKS | JSON, max_size=4)}))
def test_any_document_is_a_set_of_sound_keys_or_refused(document: object) -> None:
    try:
        keys = KeySet.from_jwks(document)
    except KeySetError:
        return
    for key in keys.keys:
        assert key.algorithms
        assert all(key in keys.find(key.kid, name) for name in key.algorithms)
        assert key.algorithms <= EVERY_ALGORITHM


@given(JWKS)
def test_a_key_that_is_used_is_one_for_another_library_too(jwk: dict[str, Any]) -> None:
    try:
        key_set(jwk)
    except KeySetError:
        return
    JWKRegistry.import_key({name: value for name, value in jwk.items() if value is not None})


def test_a_set_made_of_keys_obeys_the_same_rules() -> None:
    (key,) = key_set(p256_jwk()).keys
    assert KeySet((key,)).find("a", "ES256") == (key,)
    with pytest.raises(KeySetError, match="no usable key"):
        KeySet(())
    with pytest.raises(KeySetError, match="more than 100"):
        KeySet((Key(None, key.algorithms, key.material),) * 101)
