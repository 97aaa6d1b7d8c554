%% Brings the native tracer into the node: the module beamtrace_nif, and its library, which stands in a private file only while it is
%% loaded. Called by the client through the holder; the last holder's janitor takes both out again.
-module(beamtrace_native_loader).

-export([status/1, load/4, init/4]).

-include_lib("kernel/include/file.hrl").

-define(MODULE_NAME, "beamtrace_nif").

%% What a client has to know before it sends the library. `File` tells the version, as with the agent's own modules.
-spec status(string()) -> loaded | absent.
status(File) ->
    case code:is_loaded(beamtrace_nif) of
        {file, File} ->
            %% One that has not been proved was left by somebody who was ended in the middle.
            try beamtrace_nif:proven(false) of
                true -> loaded;
                false -> absent
            catch
                error:beamtrace_nif -> absent
            end;
        _ ->
            absent
    end.

%% Loads both and proves that the library reads this VM's terms rightly. `Md5` finds damage; whom to trust, the connection decides.
%% (The runtime itself has no SHA-2, and a node need not have the application crypto.)
-spec load(string(), binary(), binary(), binary()) -> ok | {error, term()}.
load(File, Beam, Library, Md5) ->
    case erlang:md5(Library) of
        Md5 ->
            {Loader, Monitor} = spawn_opt(?MODULE, init, [self(), File, Beam, Library], [monitor]),
            receive
                {'DOWN', Monitor, process, Loader, {beamtrace_native, Result}} -> Result;
                {'DOWN', Monitor, process, Loader, Reason} -> {error, Reason}
            end;
        _ ->
            {error, damaged}
    end.

%% In a process of its own, which goes on to the end when the one that asks is ended: no file stays behind.
-spec init(pid(), string(), binary(), binary()) -> no_return().
init(Asking, File, Beam, Library) ->
    process_flag(sensitive, true),
    Id = {beamtrace_native, self()},
    true = global:set_lock(Id, [node()]),
    Result =
        try
            load_once(File, Beam, Library, Asking)
        after
            global:del_lock(Id, [node()])
        end,
    exit({beamtrace_native, Result}).

load_once(File, Beam, Library, Asking) ->
    case {status(File), code:is_loaded(beamtrace_nif)} of
        %% Proved by whoever loaded it.
        {loaded, _} ->
            ok;
        {absent, false} ->
            load_module(File, Beam, Library, Asking);
        {absent, {file, "beamtrace:" ++ _}} ->
            %% What a broken session, or another version, has left; the agent's own loader found nobody at work.
            unload(),
            load_module(File, Beam, Library, Asking);
        {absent, {file, _}} ->
            {error, {foreign, beamtrace_nif}}
    end.

load_module(File, Beam, Library, Asking) ->
    _ = code:purge(beamtrace_nif),
    case code:load_binary(beamtrace_nif, File, Beam) of
        {module, beamtrace_nif} ->
            try {load_from(folders(), Library, none), is_process_alive(Asking)} of
                {ok, true} ->
                    true = beamtrace_nif:proven(true),
                    ok;
                {ok, false} ->
                    %% Whoever cleans up after it may have looked for the module before it was there.
                    unload(),
                    {error, too_late};
                {Error, _} ->
                    unload(),
                    Error
            catch
                error:Reason ->
                    unload(),
                    {error, Reason}
            end;
        {error, Reason} ->
            {error, Reason}
    end.

unload() ->
    _ = code:purge(beamtrace_nif),
    _ = code:delete(beamtrace_nif),
    _ = code:purge(beamtrace_nif),
    ok.

%% Where a file can be written and its code mapped. A folder on a file system without the right to execute fails in load_nif.
folders() -> [Folder || Folder <- [os:getenv("TMPDIR", "/tmp"), "/tmp", "/dev/shm", "/var/tmp", "."], Folder =/= ""].

load_from([Folder | Folders], Library, Before) ->
    Name = "beamtrace-" ++ integer_to_list(rand:uniform(1 bsl 64), 36) ++ integer_to_list(rand:uniform(1 bsl 64), 36),
    Private = filename:join(filename:absname(Folder), Name),
    case write(Private, Library) of
        ok ->
            Result = beamtrace_nif:load(filename:join(Private, ?MODULE_NAME)),
            remove(Private),
            case Result of
                ok -> beamtrace_native_check:check();
                {error, {Reason, Text}} -> load_from(Folders, Library, {load, Reason, unicode:characters_to_binary(Text)})
            end;
        {error, Reason} ->
            remove(Private),
            load_from(Folders, Library, first_reason(Before, {write, Reason, unicode:characters_to_binary(Folder)}))
    end;
load_from([], _, {_, Reason, Text}) ->
    {error, {Reason, Text}}.

%% What a library says that was written tells more than where none could be written.
first_reason({_, _, _} = Before, _) -> Before;
first_reason(none, Reason) -> Reason.

write(Private, Library) ->
    first_error([
        fun() -> file:make_dir(Private) end,
        fun() -> file:change_mode(Private, 8#700) end,
        fun() -> private(Private) end,
        fun() -> file:write_file(filename:join(Private, ?MODULE_NAME ".so"), Library, [exclusive, raw]) end
    ]).

first_error([Step | Steps]) ->
    case Step() of
        ok -> first_error(Steps);
        {error, Reason} -> {error, Reason}
    end;
first_error([]) ->
    ok.

%% Nobody may have put anything there between the two steps before.
private(Private) ->
    case {file:read_link_info(Private), file:list_dir(Private)} of
        {{ok, #file_info{type = directory, mode = Mode}}, {ok, []}} when Mode band 8#777 =:= 8#700 -> ok;
        _ -> {error, not_private}
    end.

remove(Private) ->
    _ = file:delete(filename:join(Private, ?MODULE_NAME ".so")),
    _ = file:del_dir(Private),
    ok.
