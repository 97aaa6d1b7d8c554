%% The beams that are kept beside a manifest, and how files are replaced. A plain beam is named by its digest (`PLAIN.beam`), an instrumented one by
%% its plain one's and its own (`PLAIN-OUTPUT.beam`): the names alone say what an instrumented beam was made from, whatever became of the manifest
%% and wherever a build was interrupted, as both are there before the instrumented one takes the plain one's place.
-module(beamtrace_kept).

-export([folder/1, origins/1, plain/2, instrumented/3, by_debug_info/1, described/1, keep_plain/3, keep_instrumented/3, sweep/2, drop/1]).
-export([digest/1, is_instrumented/1, replace/3, write/3, sweep_temporary/2]).

-export_type([digest/0, description/0]).

-include_lib("kernel/include/file.hrl").

-type digest() :: binary().
%% What an instrumented beam has in common with its plain one.
-type description() :: {module(), digest()}.

%% The folder that belongs to a manifest.
-spec folder(file:filename()) -> file:filename().
folder(Manifest) ->
    Manifest ++ ".kept".

%% Which plain beam each instrumented one was made from.
-spec origins(file:filename()) -> #{digest() => digest()}.
origins(Folder) ->
    maps:from_list([{Output, Plain} || Name <- names(Folder), {Plain, Output} <- [digests(Name)], Output =/= undefined]).

%% A plain beam; undefined when it is not there, or is not what its name says.
-spec plain(file:filename(), digest()) -> binary() | undefined.
plain(Folder, Digest) ->
    case read(Folder, name(Digest), Digest) of
        undefined -> undefined;
        Bytes ->
            case is_instrumented(Bytes) of
                true -> undefined;
                false -> Bytes
            end
    end.

-spec instrumented(file:filename(), Plain :: digest(), Output :: digest()) -> binary() | undefined.
instrumented(Folder, Plain, Output) ->
    read(Folder, name(Plain, Output), Output).

read(Folder, Name, Digest) ->
    case file:read_file(filename:join(Folder, Name)) of
        {ok, Bytes} ->
            case digest(Bytes) of
                Digest -> Bytes;
                _ -> undefined
            end;
        {error, _} ->
            undefined
    end.

%% The plain beams by what instrumented ones have of them: for those whose names say nothing. Reads them all.
-spec by_debug_info(file:filename()) -> #{description() => digest()}.
by_debug_info(Folder) ->
    maps:from_list([
        {Description, Plain}
     || Name <- names(Folder),
        {Plain, undefined} <- [digests(Name)],
        Bytes <- [plain(Folder, Plain)],
        Bytes =/= undefined,
        {ok, Description} <- [described(Bytes)]
    ]).

%% Instrumenting leaves debug info and docs as they are.
-spec described(binary()) -> {ok, description()} | error.
described(Bytes) ->
    case beam_lib:chunks(Bytes, ["Dbgi", "Docs"], [allow_missing_chunks]) of
        {ok, {Module, [{"Dbgi", Info}, Docs]}} when is_binary(Info) -> {ok, {Module, digest(term_to_binary({Info, Docs}))}};
        _ -> error
    end.

%% Keeps what lies at a path under another name. It has only that one when the new file takes its place: a build has thousands of files, and each
%% operation on one wakes a thread of the VM.
-spec keep_plain(file:filename(), file:filename() | undefined, binary()) -> ok | {error, term()}.
keep_plain(Folder, Path, Bytes) ->
    Kept = filename:join(Folder, name(digest(Bytes))),
    case Path =/= undefined andalso file:make_link(Path, Kept) of
        ok -> ok;
        %% It is there, or the file system has no links.
        _ -> keep(Folder, filename:basename(Kept), Bytes)
    end.

-spec keep_instrumented(file:filename(), Plain :: digest(), binary()) -> ok | {error, term()}.
keep_instrumented(Folder, Plain, Bytes) ->
    keep(Folder, name(Plain, digest(Bytes)), Bytes).

keep(Folder, Name, Bytes) ->
    case read(Folder, Name, digest(Bytes)) of
        undefined -> write(Folder, filename:join(Folder, Name), Bytes);
        _ -> ok
    end.

%% Deletes all but these pairs of a plain beam and what was made from it, and with them what interrupted builds left; the folder too when nothing is.
-spec sweep(file:filename(), [{Plain :: digest(), Output :: digest()}]) -> ok.
sweep(Folder, Pairs) ->
    Wanted = maps:from_keys(lists:append([[name(Plain), name(Plain, Output)] || {Plain, Output} <- Pairs]), wanted),
    _ = [file:delete(filename:join(Folder, Name)) || Name <- names(Folder), not is_map_key(Name, Wanted)],
    _ = [file:del_dir(Folder) || Pairs =:= []],
    ok.

-spec drop(file:filename()) -> ok.
drop(Folder) ->
    _ = file:del_dir_r(Folder),
    ok.

names(Folder) ->
    case file:list_dir(Folder) of
        {ok, Names} -> Names;
        {error, _} -> []
    end.

name(Plain) ->
    hex(Plain) ++ ".beam".

name(Plain, Output) ->
    hex(Plain) ++ "-" ++ hex(Output) ++ ".beam".

hex(Digest) ->
    binary_to_list(binary:encode_hex(Digest)).

digests(Name) ->
    try
        case string:split(filename:basename(Name, ".beam"), "-") of
            [Plain] -> {unhex(Plain), undefined};
            [Plain, Output] -> {unhex(Plain), unhex(Output)}
        end
    catch
        %% Not a file of ours, or not a whole one.
        error:badarg -> none
    end.

unhex(Text) ->
    binary:decode_hex(list_to_binary(Text)).

%% Tells versions of a file apart; nobody gains from making two alike.
-spec digest(iodata()) -> digest().
digest(Bytes) ->
    erlang:md5(Bytes).

%% Whether a beam has a table of sites, as every instrumented one has.
-spec is_instrumented(binary()) -> boolean().
is_instrumented(Bytes) ->
    case beam_lib:chunks(Bytes, ["BtSt"], [allow_missing_chunks]) of
        {ok, {_, [{"BtSt", Table}]}} -> is_binary(Table);
        {error, beam_lib, _} -> false
    end.

%% The new file takes the old one's place in one step, with its mode and time of change: whoever compares times sees what the compiler did.
-spec replace(file:filename(), file:filename(), binary()) -> ok | {error, term()}.
replace(Folder, Path, Bytes) ->
    case file:read_file_info(Path, [raw, {time, posix}]) of
        {ok, #file_info{mode = Mode, mtime = Modified, atime = Read}} ->
            write(Folder, Path, Bytes, fun(Temporary) ->
                file:write_file_info(Temporary, #file_info{mode = Mode, mtime = Modified, atime = Read}, [raw, {time, posix}])
            end);
        {error, Reason} ->
            {error, Reason}
    end.

%% Writes a file in one step.
-spec write(file:filename(), file:filename(), iodata()) -> ok | {error, term()}.
write(Folder, Path, Bytes) ->
    write(Folder, Path, Bytes, fun(_) -> ok end).

%% It is made in the folder of kept beams: what a build leaves there when it is killed ends up in no release.
write(Folder, Path, Bytes, Finish) ->
    Name = io_lib:format("~ts.beamtrace-~ts~b", [filename:basename(Path), os:getpid(), erlang:unique_integer([positive])]),
    case moved(filename:join(Folder, lists:flatten(Name)), Path, Bytes, Finish) of
        %% Another file system.
        {error, exdev} -> moved(Path ++ ".beamtrace-" ++ os:getpid(), Path, Bytes, Finish);
        Result -> Result
    end.

moved(Temporary, Path, Bytes, Finish) ->
    Steps = [
        fun() -> file:write_file(Temporary, Bytes, [raw]) end,
        fun() -> Finish(Temporary) end,
        fun() -> file:rename(Temporary, Path) end
    ],
    case first_error(Steps) of
        ok ->
            ok;
        {error, Reason} ->
            _ = file:delete(Temporary),
            {error, Reason}
    end.

first_error([]) ->
    ok;
first_error([Step | More]) ->
    case Step() of
        ok -> first_error(More);
        {error, Reason} -> {error, Reason}
    end.

%% Deletes what an interrupted build left among the beams.
-spec sweep_temporary(file:filename(), [file:filename()]) -> ok.
sweep_temporary(Folder, Names) ->
    _ = [file:delete(filename:join(Folder, Name)) || Name <- Names, is_temporary(Name)],
    ok.

is_temporary(Name) ->
    re:run(Name, "\\.beam\\.beamtrace-[0-9]+$", [{capture, none}]) =:= match.
