"""What a caller of the REST interface is told, and what the log keeps of it."""

from integration.mutants.mutant import Mutant

MUTANTS = (
    Mutant(
        name="wrong-code",
        breaks="a patch to another minor version is refused with the code of a malformed version",
        file="rtmanager/operations/recreate.py",
        old="            ErrorCode.SEMVER_PATCH_ONLY,\n",
        new="            ErrorCode.IMAGE_REF_NOT_SEMVER,\n",
        module="test_patch",
    ),
    Mutant(
        name="wrong-status",
        breaks="a conflict is answered with 400, so that a caller takes it for his own mistake",
        file="rtmanager/http/messages.py",
        old="    ErrorCode.CONFLICT: 409,\n",
        new="    ErrorCode.CONFLICT: 400,\n",
        module="test_rest",
    ),
    Mutant(
        name="lax-bodies",
        breaks="a misspelt field of a request is ignored",
        file="rtmanager/http/bodies.py",
        old="    if unknown:\n",
        new="    if unknown and not names:\n",
        module="test_rest_bodies",
    ),
    Mutant(
        name="caller-ignored",
        breaks="what the Game Master did stands in the log as the administrator's doing",
        file="rtmanager/http/api.py",
        old="OpSource.GM_REST if request.headers",
        new="OpSource.ADMIN_REST if request.headers",
        module="test_rest",
    ),
    Mutant(
        name="parts-not-logged",
        breaks="a restart leaves one row in the log, its stop and its start are missing",
        file="rtmanager/adapters/postgres/endings.py",
        old="for entry in ending.log]",
        new="for entry in ending.log[-1:]]",
        module="test_lifecycle",
    ),
    Mutant(
        name="failures-not-logged",
        breaks="an operation that failed leaves no row in the log",
        file="rtmanager/adapters/postgres/endings.py",
        old="for entry in ending.log]",
        new='for entry in ending.log if entry.outcome == "success"]',
        module="test_notification",
    ),
    Mutant(
        name="ready-without-network",
        breaks="readiness says all is well though no game can be started for want of its network",
        file="rtmanager/app.py",
        old='READY = frozenset({"postgres", "redis", "docker", "network"})',
        new='READY = frozenset({"postgres", "redis", "docker"})',
        module="test_rest",
    ),
)
