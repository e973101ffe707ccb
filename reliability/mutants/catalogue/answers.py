"""Answers of the REST interface, and their rows in the log."""

from reliability.mutants.check import module
from reliability.mutants.mutant import Edit, Mutant

MUTANTS = (
    Mutant(
        "wrong-code",
        "a patch to another minor version is refused with the code of a malformed version",
        Edit(
            "operations/recreate.py",
            "            ErrorCode.SEMVER_PATCH_ONLY,\n",
            "            ErrorCode.IMAGE_REF_NOT_SEMVER,\n",
        ),
        check=module("test_patch"),
    ),
    Mutant(
        "wrong-status",
        "a conflict is answered with 400, so that a caller takes it for his own mistake",
        Edit("http/messages.py", "    ErrorCode.CONFLICT: 409,\n", "    ErrorCode.CONFLICT: 400,\n"),
        check=module("test_rest"),
    ),
    Mutant(
        "lax-bodies",
        "a misspelt field of a request is ignored",
        Edit("http/bodies.py", "    if unknown:\n", "    if unknown and not names:\n"),
        check=module("test_rest_bodies"),
    ),
    Mutant(
        "any-origin",
        "a page in somebody's browser may restart games",
        Edit(
            "http/authority.py",
            "    if origin is not None and not _same_origin(",
            '    if origin == "" and not _same_origin(',
        ),
        check=module("test_rest_bodies"),
    ),
    Mutant(
        "any-host",
        "a page whose name was rebound to the manager's address may restart games",
        Edit("http/authority.py", '"." not in host or host in listed', '"." in host or host in listed'),
        check=module("test_rest_bodies"),
    ),
    Mutant(
        "any-type",
        "a body is taken for JSON whatever it is called, so that a form may send it",
        Edit("http/bodies.py", "    if not _says_json(given):\n", "    if not given and not _says_json(given):\n"),
        check=module("test_rest_bodies"),
    ),
    Mutant(
        "caller-ignored",
        "what the Game Master did stands in the log as the administrator's doing",
        Edit("http/access.py", 'OpSource.GM_REST if given == "gm"', 'OpSource.ADMIN_REST if given == "gm"'),
        check=module("test_rest"),
    ),
    Mutant(
        "parts-not-logged",
        "a restart leaves one row in the log, its stop and its start are missing",
        Edit("adapters/postgres/changes.py", "for entry in changes.log]", "for entry in changes.log[-1:]]"),
        check=module("test_lifecycle"),
    ),
    Mutant(
        "failures-not-logged",
        "an operation that failed leaves no row in the log",
        Edit(
            "adapters/postgres/changes.py",
            "for entry in changes.log]",
            'for entry in changes.log if entry.outcome == "success"]',
        ),
        check=module("test_notification"),
    ),
    Mutant(
        "ready-without-network",
        "readiness answers 200 though no game can be started for want of its network",
        Edit(
            "bootstrap/app.py",
            'READY = frozenset({"postgres", "redis", "docker", "network", "daemon", "state root"})',
            'READY = frozenset({"postgres", "redis", "docker", "daemon", "state root"})',
        ),
        check=module("test_rest"),
    ),
)
